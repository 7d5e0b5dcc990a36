"""The engine process of a slot: `python -m synth_consumer.worker.engine_child PARENT_PID`.

Standard input brings commands, standard output carries events; what libraries print goes to standard error. The
process ends with its parent, however that one ends: by the end of the pipe, and by the kernel's word.
"""

import contextlib
import ctypes
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from importlib import import_module
from typing import BinaryIO

from synth_consumer.engines.protocol import EngineUnavailableError, SpeechEngine
from synth_consumer.worker.engine_host import EngineHost
from synth_consumer.worker.frames import (
    ChildEvent,
    Command,
    Crashed,
    FrameError,
    Open,
    Ready,
    Unavailable,
    pack,
    read_blocking,
)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
_EXIT_SOFTWARE = 70  # EX_SOFTWARE


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the kernel was asked.
    if os.getppid() != parent:
        os._exit(0)


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes for ourselves; a library that prints must not break the protocol."""
    commands = os.fdopen(os.dup(0), "rb")
    events = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return commands, events


def _read_commands(stream: BinaryIO, inbox: "queue.SimpleQueue[Command]") -> None:
    """Runs in a thread. At the end of the pipe the process ends at once, also when a step hangs."""
    while True:
        try:
            frame = read_blocking(stream)
        except FrameError:
            os._exit(_EXIT_SOFTWARE)
        if frame is None:
            os._exit(0)
        inbox.put(frame)  # type: ignore[arg-type]  # a parent sends commands only


def _report(error: Exception) -> None:
    """Where it broke, as a line of the log, without the message: that may hold a request's text."""
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    line = {"event": "engine broke", "level": "error", "error": type(error).__name__, "at_code": places}
    print(json.dumps(line, ensure_ascii=False), file=sys.stderr, flush=True)


def _opened(command: Open) -> tuple[SpeechEngine, Ready]:
    module, _, name = command.factory.partition(":")
    started = time.monotonic()
    engine: SpeechEngine = getattr(import_module(module), name)(command.settings)
    engine.load()
    loaded = time.monotonic()
    engine.warm_up()
    warm = time.monotonic()
    ready = Ready(
        engine.name,
        engine.revision,
        engine.sample_rate,
        engine.lanes,
        round(loaded - started, 3),
        round(warm - loaded, 3),
    )
    return engine, ready


def _serve(inbox: "queue.SimpleQueue[Command]", host: EngineHost) -> None:
    while True:
        # Blocks only while there is nothing to step.
        with contextlib.suppress(queue.Empty):
            host.handle(inbox.get(block=not host.busy))
            continue  # take every waiting command before the next step
        host.step()


def main() -> None:
    """Runs until the parent closes the pipe, or the engine breaks."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent drains and then ends us
    _die_with_parent(int(sys.argv[1]))
    commands, events = _own_pipes()
    inbox: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def say(event: ChildEvent) -> None:
        events.write(pack(event))
        events.flush()

    threading.Thread(target=_read_commands, args=(commands, inbox), name="commands", daemon=True).start()
    first = inbox.get()
    if not isinstance(first, Open):
        sys.exit(_EXIT_SOFTWARE)
    try:
        engine, ready = _opened(first)
        say(ready)
        _serve(inbox, EngineHost(engine, say, first_chunk_s=first.first_chunk_s, chunk_s=first.chunk_s))
    except EngineUnavailableError as error:
        say(Unavailable(str(error)))
        os._exit(_EXIT_UNAVAILABLE)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:
        _report(error)
        say(Crashed(type(error).__name__))
        # Not sys.exit: threads of a broken native library may keep the interpreter from ending.
        os._exit(_EXIT_SOFTWARE)


if __name__ == "__main__":
    main()
