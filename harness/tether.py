"""Runs a command that dies with the process that started it, even with one killed by -9.

`python -I -S tether.py PARENT_PID COMMAND…` asks the kernel for a SIGKILL when the parent ends,
then becomes the command, so the process id stays the same. It imports nothing of ours, to start
within some 20 ms. Where the kernel has no such promise (macOS), the command just runs.
"""

import ctypes
import os
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Ties this process to its parent and becomes the command.

    Args:
        arguments: The parent's process id, then the command.
    """
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - the command is the caller's own


if __name__ == "__main__":
    main(sys.argv[1:])
