"""The fingerprint: one name for all requests that would sound the same.

SHA-256 over the canonical JSON of everything that changes the sound, with the version of the rules inside, so that
a change of rules can never meet an old name. The file format is not in it: one synthesis serves every format.
"""

import hashlib
import json

from schemas.requests import SpeechSpec

FINGERPRINT_VERSION = 1


def canonical_form(spec: SpeechSpec, *, engine: str, revision: str) -> bytes:
    """The bytes that are hashed: JSON with sorted keys, no spaces, UTF-8."""
    content = {
        "version": FINGERPRINT_VERSION,
        "engine": engine,
        "revision": revision,
        "spec": spec.model_dump(mode="json", by_alias=True),
    }
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def fingerprint(spec: SpeechSpec, *, engine: str, revision: str) -> str:
    """64 hex digits.

    Args:
        spec: resolved request; its text must be canonical (`schemas.text.canonical_text`).
        engine: name of the engine that will speak.
        revision: the operator's revision of weights and voices.
    """
    return hashlib.sha256(canonical_form(spec, engine=engine, revision=revision)).hexdigest()


def derived_seed(fingerprint_hex: str) -> int:
    """The seed of a request that names none: 31 bits of its fingerprint, so repeats sound alike everywhere."""
    return int(fingerprint_hex[:8], 16) & 0x7FFFFFFF
