"""Run as a file: kills what a dead supervisor left behind (stdlib only).

Reads `+GROUP` and `-GROUP` lines on standard input. The pipe breaks when the supervisor ends, however it ends; every
process group still on the list is then killed. It reaches what the kernel's parent-death signal does not: the children
of children (the engine processes of a slot), and systems other than Linux.
"""

import os
import signal
import sys


def main() -> None:
    """Follow the list until the pipe breaks, then kill what is left on it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change, group = line[0], int(line[1:])
        (groups.add if change == "+" else groups.discard)(group)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:  # all of it has gone already
            continue


if __name__ == "__main__":
    main()
