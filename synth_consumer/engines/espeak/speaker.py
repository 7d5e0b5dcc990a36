"""The process that speaks for the espeak engine: `python -m synth_consumer.engines.espeak.speaker`.

espeak-ng carries hidden state from one utterance to the next (the phase of its pitch wobble, cycle counters), which
no call resets: the same text would give other bytes each time. So this process loads the library once and speaks
each group of utterances in a fork of that first state. A text that crashes or hangs the library costs only its fork.

Standard input: one group a line, as JSON. Standard output: frames of a one-byte kind, a length, a payload; one frame
for each utterance of the group, or a single error.
Ends when its input does, that is, with its engine.
"""

import json
import os
import signal
import struct
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import BinaryIO

from synth_consumer.engines.espeak.library import EspeakError, EspeakLibrary, Utterance

HEADER = struct.Struct("<cI")
HELLO, PCM, ERROR = b"H", b"P", b"E"


def encode_group(utterances: Sequence[Utterance]) -> bytes:
    """The line that asks for the utterances."""
    return json.dumps([asdict(utterance) for utterance in utterances]).encode() + b"\n"


def _write(out: BinaryIO, kind: bytes, payload: bytes) -> None:
    out.write(HEADER.pack(kind, len(payload)) + payload)
    out.flush()


def _speak_in_fork(library: EspeakLibrary, group: Sequence[Utterance], out: BinaryIO, timeout_s: int) -> None:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(timeout_s)
            spoken = [library.speak(utterance) for utterance in group]
            signal.alarm(0)
            for pcm in spoken:
                _write(out, PCM, pcm)
            status = 0
        except EspeakError as error:
            _write(out, ERROR, str(error).encode())
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    exit_code = os.waitstatus_to_exitcode(status)
    if exit_code != 0:
        why = signal.Signals(-exit_code).name if exit_code < 0 else f"status {exit_code}"
        _write(out, ERROR, f"espeak-ng died speaking ({why})".encode())


def main() -> None:
    """Speak until the input ends. The only argument is the bound of one group, in seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = sys.stdout.buffer
    try:
        library = EspeakLibrary()
    except EspeakError as error:
        _write(out, ERROR, str(error).encode())
        return
    hello = {"version": library.version, "sample_rate": library.sample_rate, "variants": sorted(library.variants)}
    _write(out, HELLO, json.dumps(hello).encode())
    for line in sys.stdin.buffer:
        _speak_in_fork(library, [Utterance(**fields) for fields in json.loads(line)], out, int(sys.argv[1]))


if __name__ == "__main__":
    main()
