"""What a rival is told, and how it is told to end."""

from __future__ import annotations

import json
import signal
import sys
import threading
from dataclasses import asdict, dataclass

__all__ = ["BACKENDS", "Job", "stopping"]

BACKENDS = ("onnx", "onnx-int8", "torch")


@dataclass(frozen=True, slots=True)
class Job:
    """One process's work.

    Attributes:
        bootstrap_servers: The broker.
        source: Topic of documents, `{"text": ...}` under their ids.
        target: Topic of vectors: float32, little-endian, under the same ids.
        group: Consumer group, if it uses one.
        table: Folder of LanceDB tables; one named `documents` is written, if it writes any.
        folder: For whatever else it must keep.
        model: A hub id or a folder that sentence-transformers loads.
        backend: One of `BACKENDS`.
        process: Its number among those that share the group.
    """

    bootstrap_servers: str
    source: str
    target: str
    group: str
    table: str
    folder: str
    model: str
    backend: str
    process: int = 0

    def told(self) -> str:
        """The command-line argument from which `of` makes it again."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, arguments: list[str]) -> Job:
        """The job that a program was told of.

        Raises:
            SystemExit: The command line holds none.
        """
        try:
            (told,) = arguments
            return cls(**json.loads(told))
        except (ValueError, TypeError) as error:
            sys.exit(f"benchmarks.rivals: {arguments}: not a job: {error}")


def stopping() -> threading.Event:
    """Set when the process is asked to end."""
    asked = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: asked.set())
    return asked
