"""The engine's end of the speaker process."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synth_consumer.engines.espeak.library import EspeakError, Utterance
from synth_consumer.engines.espeak.speaker import ERROR, HEADER, HELLO, encode_group
from synth_consumer.engines.protocol import Pcm

_SPEAKER = "synth_consumer.engines.espeak.speaker"
_STOP_TIMEOUT_S = 5.0


class SpeakerGoneError(Exception):
    """The speaker process ended on its own."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the speaker says of its library."""

    version: str
    sample_rate: int
    variants: list[str]


class SpeakerLink:
    """Starts the speaker process and asks it for one group of utterances at a time."""

    def __init__(self, timeout_s: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", _SPEAKER, str(timeout_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # The library writes remarks of its own there, some with parts of the text in them.
            stderr=subprocess.DEVNULL,
        )
        try:
            kind, payload = self._read()
            if kind != HELLO:
                raise EspeakError(payload.decode())
        except BaseException:
            self.close()
            raise
        self.hello = Hello(**json.loads(payload))

    def speak(self, group: Sequence[Utterance]) -> list[Pcm]:
        """Speak and wait for it, some milliseconds for a sentence.

        Returns:
            For each utterance its samples in [-1, 1] at the library's rate. They depend on the whole group.

        Raises:
            EspeakError: this group failed; the next may go well.
            SpeakerGoneError: the process is gone; make a new link.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(encode_group(group))
            self._process.stdin.flush()
        except OSError:
            raise SpeakerGoneError("the espeak speaker process is gone") from None
        spoken: list[Pcm] = []
        while len(spoken) < len(group):
            kind, payload = self._read()
            if kind == ERROR:
                raise EspeakError(payload.decode())
            spoken.append(np.frombuffer(payload, np.int16).astype(np.float32) / np.float32(32_768))
        return spoken

    def close(self) -> None:
        """End the process and wait for it."""
        for pipe in (self._process.stdin, self._process.stdout):
            # A pipe to a process that died may still hold a request.
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> tuple[bytes, bytes]:
        kind, length = HEADER.unpack(self._read_exactly(HEADER.size))
        return kind, self._read_exactly(length)

    def _read_exactly(self, size: int) -> bytes:
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) < size:
            raise SpeakerGoneError("the espeak speaker process is gone")
        return data
