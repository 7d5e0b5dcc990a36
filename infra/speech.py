"""What a request asks to hear, resolved: voice, language, dialect and text checked against the installation.

Dedup and the gateway both stand at a door; they must come to the same fingerprint.
"""

from dataclasses import dataclass

from infra.voices import Catalogue
from schemas.codes import ErrorCode
from schemas.fingerprint import fingerprint
from schemas.requests import MAX_CANONICAL_CHARS, SpeechSpec, SynthesisRequested
from schemas.text import canonical_text, is_speakable, primary_language


class RefusedError(Exception):
    """A request that cannot be served. `pointer` is a JSON pointer to the field at fault."""

    def __init__(self, code: ErrorCode, message: str, pointer: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Speech:
    """The engine and the voices requests are checked against."""

    catalogue: Catalogue
    engine: str
    revision: str

    def spec_of(self, request: SynthesisRequested) -> SpeechSpec:
        """Everything that changes the sound, resolved.

        Raises:
            RefusedError: no such voice, language or dialect, or nothing in the text has a sound.
        """
        if request.voice not in self.catalogue.voices:
            known = ", ".join(sorted(self.catalogue.voices))
            raise RefusedError(ErrorCode.UNSUPPORTED_VOICE, f"no such voice; there are: {known}", "/voice")
        language, dialect = self._tongue(request)
        text = canonical_text(request.text, language)
        if len(text) > MAX_CANONICAL_CHARS:
            message = f"written out in full, the text is longer than {MAX_CANONICAL_CHARS} characters"
            raise RefusedError(ErrorCode.INVALID_REQUEST, message, "/text")
        if not is_speakable(text):
            raise RefusedError(ErrorCode.TEXT_NOT_SPEAKABLE, "nothing in the text can be spoken", "/text")
        return SpeechSpec(
            text=text,
            voice=request.voice,
            language=language,
            dialect=dialect,
            style=request.style,
            speed=request.speed,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            seed=request.seed,
        )

    def fingerprint_of(self, spec: SpeechSpec) -> str:
        """The fingerprint under this engine and revision."""
        return fingerprint(spec, engine=self.engine, revision=self.revision)

    def _tongue(self, request: SynthesisRequested) -> tuple[str, str]:
        dialects = self.catalogue.dialects
        named = request.dialect
        if named is not None and named not in dialects:
            known = ", ".join(sorted(dialects))
            raise RefusedError(ErrorCode.UNSUPPORTED_DIALECT, f"no such dialect; there are: {known}", "/dialect")
        if named is not None and request.language is None:
            language = dialects[named]
        else:
            language = primary_language(request.language, request.text)
        if language not in self.catalogue.languages:
            known = ", ".join(sorted(self.catalogue.languages))
            raise RefusedError(ErrorCode.INVALID_REQUEST, f"no such language; there are: {known}", "/language")
        dialect = named or self.catalogue.default_dialect(language) or ""
        if dialects.get(dialect) != language:
            message = "the dialect does not belong to the language"
            raise RefusedError(ErrorCode.UNSUPPORTED_DIALECT, message, "/dialect")
        if not self.catalogue.speaks(self.engine, dialect):
            message = f"engine {self.engine} does not speak {dialect}"
            raise RefusedError(ErrorCode.UNSUPPORTED_DIALECT, message, "/dialect")
        return language, dialect
