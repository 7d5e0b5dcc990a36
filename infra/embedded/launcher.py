"""Run as a file: becomes the child's command after tying its life to the supervisor's (stdlib only, starts in 15 ms).

`python -I -S launcher.py SUPERVISOR_PID PROGRAM ARG…`. On Linux the kernel then kills the child in the moment its
supervisor dies, `kill -9` included. A `preexec_fn` could do the same, but runs Python between fork and exec, which is
not safe beside threads.
"""

import os
import sys


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent ends; elsewhere than on Linux the guardian does this alone."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # noqa: PLC0415 - only where it is needed, it costs 10 ms

    pr_set_pdeathsig, sigkill = 1, 9
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, sigkill)
    if os.getppid() != parent:  # it died between fork and prctl: nobody would tell us any more
        os._exit(1)


def main() -> None:
    """Tie, then become the command; exit 127 with a line on standard error when it cannot run."""
    parent, program, *arguments = sys.argv[1:]
    die_with_parent(int(parent))
    try:
        os.execv(program, [program, *arguments])  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"cannot run {program}: {error.strerror}\n")
        os._exit(127)


if __name__ == "__main__":
    main()
