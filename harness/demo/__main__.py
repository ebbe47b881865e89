"""Starts it: `python -m harness.demo`."""

import signal
import sys

if __name__ == "__main__":
    # Ctrl-C ends it quietly also while it imports the rest.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from harness.demo.main import main

if __name__ == "__main__":
    sys.exit(main())
