"""The base of every error that Headrace raises on purpose.

```text
HeadraceError                 a job that can't be done; exit code 1
├── UsageError                a wrong setting or argument; exit code 2
├── clients.BrokerError
├── clients.RegistryError
├── operators.model.ModelError
├── sources.SourceError
├── sinks.SinkError
│   ├── sinks.FilterError       a condition that can't be right; exit code 2
│   └── sinks.WriterLostError   the table's writer ended unasked; exit code 75
├── recovery.RecoveryError
├── cli.CommandError
└── harness.HarnessError
```

The text of each is one line that names the thing (setting, topic, folder), its value, and what
to do about it, so that it can be shown as it stands.
"""

from typing import ClassVar

__all__ = ["HeadraceError", "UsageError"]


class HeadraceError(Exception):
    """A job that can't be done, told in one line that names the thing and the way out."""

    exit_code: ClassVar[int] = 1


class UsageError(HeadraceError):
    """A setting or an argument that can't be right, whatever the world outside looks like."""

    exit_code: ClassVar[int] = 2
