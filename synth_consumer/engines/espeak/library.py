"""espeak-ng's C interface, as much of it as is needed. Only the speaker process loads it.

Constants are those of `speak_lib.h` (espeak-ng 1.52).
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1  # the text is UTF-8, neither SSML (0x10) nor phonemes (0x100): nothing in it is a command
_POS_CHARACTER = 1
_PARAMETER_RATE = 1
_PARAMETER_VOLUME = 2
_PARAMETER_PITCH = 3
_BUFFER_MS = 200
# The library copies the data path into a buffer of this size (`N_PATH_HOME`), its own suffixes included.
_MAX_DATA_PATH = 160 - len("/espeak-ng-data") - 1
# Noise in consonants and the wobble of the pitch come from a random generator.
_RANDOM_SEED = 1

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class EspeakError(Exception):
    """The library cannot be loaded, or refused a call."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of text in one voice."""

    voice: str  # language, "+", variant: "cmn+f1"
    text: str
    words_per_minute: int  # 80..450
    pitch: int  # 0..100
    volume: int  # 0..100


def _paths() -> tuple[str, str]:
    try:
        import espeakng_loader  # noqa: PLC0415
    except ImportError:
        raise EspeakError("espeakng-loader is not installed; install it with: pip install 'voxbus[synth]'") from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


class EspeakLibrary:
    """The loaded library. One per process: its state is global."""

    def __init__(self) -> None:
        library_path, data_path = _paths()
        if len(data_path.encode()) > _MAX_DATA_PATH:
            raise EspeakError(
                f"the path of espeak-ng's data is longer than {_MAX_DATA_PATH} bytes: {data_path}; "
                "install voxbus in a folder with a shorter path"
            )
        try:
            self._library = ctypes.CDLL(library_path)
        except OSError as error:
            raise EspeakError(f"espeak-ng cannot be loaded: {error}") from None
        self.sample_rate: int = self._library.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, _BUFFER_MS, data_path.encode(), _INITIALIZE_DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise EspeakError(f"espeak-ng does not start with the data in {data_path}")
        self._pcm = bytearray()
        # Kept, as the library holds only the address.
        self._callback = _Callback(self._take_samples)
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_Info.restype = ctypes.c_char_p
        self.version: str = self._library.espeak_Info(None).decode()
        self.variants = frozenset(path.name for path in (Path(data_path) / "voices" / "!v").iterdir())

    def speak(self, utterance: Utterance) -> bytes:
        """Speak at once.

        Returns:
            16-bit mono samples in the machine's byte order.

        Raises:
            EspeakError: the voice is unknown, or the library refused.
        """
        self._pcm = bytearray()
        library = self._library
        library.espeak_ng_SetRandSeed(ctypes.c_long(_RANDOM_SEED))
        if library.espeak_SetVoiceByName(utterance.voice.encode()) != 0:
            raise EspeakError(f"espeak-ng has no voice {utterance.voice!r}")
        library.espeak_SetParameter(_PARAMETER_RATE, utterance.words_per_minute, 0)
        library.espeak_SetParameter(_PARAMETER_PITCH, utterance.pitch, 0)
        library.espeak_SetParameter(_PARAMETER_VOLUME, utterance.volume, 0)
        text = utterance.text.encode() + b"\0"
        status = library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        if status != 0:
            raise EspeakError(f"espeak-ng refused the text (status {status})")
        return bytes(self._pcm)

    def _take_samples(self, samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        # Called from C: nothing here may raise. A null pointer marks the end.
        if samples and count > 0:
            self._pcm += ctypes.string_at(samples, count * 2)
        return 0
