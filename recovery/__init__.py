"""What makes a restart exact: progress, fencing order, the recovery store, the watchdog."""

from recovery.errors import RecoveryError

__all__ = ["RecoveryError"]
