"""The process in which the table is written: `python -m sinks.process FD`.

A merge takes ten milliseconds of a core or more, much of it with the interpreter's lock, and
compaction and index upkeep take more. In a process of its own all that holds up neither the model
nor the topic. A worker starts it and speaks to it over a pipe (`sinks.remote`); it ends with its
worker, whatever happens to that.

It imports nothing of the model: `sinks` knows nothing of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import structlog

from headrace.errors import HeadraceError
from sinks.protocol import Commit, Failed, Opened, Opening, Written
from sinks.routed import RoutedStore
from sinks.router import RoutedWriter
from sinks.writer import TableWriter
from telemetry import logs

if TYPE_CHECKING:
    from collections.abc import Sequence

    Pipe = Connection[Opened | Written | Failed, Opening | Commit | None]

__all__ = ["main", "serve"]

log = structlog.get_logger(__name__)

IDLE_S: Final = 1.0
"""How long nothing is asked before the table is looked after."""


def serve(pipe: Pipe) -> None:
    """Open the table, then commit what is asked until the other end says that this is all.

    Errors go over the pipe, in the line that a person is to read, and end it.
    """
    try:
        opening = pipe.recv()
    except EOFError:
        return
    assert isinstance(opening, Opening)
    try:
        _write(pipe, opening)
    except HeadraceError as error:
        _answer(pipe, Failed(str(error), error.exit_code))
    except Exception as error:
        log.exception("commit failed", stage="table")
        _answer(pipe, Failed(f"table commit: {type(error).__name__}: {error}"))


def _write(pipe: Pipe, opening: Opening) -> None:
    asked: SimpleQueue[Commit | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, asked), name="pipe", daemon=True).start()
    writer = _writer(opening)
    _answer(pipe, Opened(writer.fence.progress, writer.rows))
    answered = time.process_time()
    while True:
        try:
            commit = asked.get(timeout=IDLE_S)
        except Empty:
            writer.idle()
            continue
        if commit is None:
            return
        writer.commit(pa.ipc.open_stream(commit.rows).read_all(), commit.progress)
        now = time.process_time()
        _answer(pipe, Written(writer.rows, now - answered, writer.index_builds()))
        answered = now
        writer.keep_up()


def _writer(opening: Opening) -> TableWriter | RoutedWriter:
    """What writes the table, or all of several."""
    if isinstance(opening.store, RoutedStore):
        return RoutedWriter(opening.store, opening.upkeep, opening.max_chunks)
    return TableWriter(opening.store, opening.upkeep, opening.max_chunks)


def _listen(pipe: Pipe, asked: SimpleQueue[Commit | None]) -> None:
    """Pass on what is asked; end this process, at whatever it is, when the worker is gone.

    What was not committed by then is read again by the worker's successor.
    """
    while True:
        try:
            request = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)
        assert not isinstance(request, Opening)
        asked.put(request)
        if request is None:
            return


def _answer(pipe: Pipe, answer: Opened | Written | Failed) -> None:
    with suppress(OSError):  # the worker is gone; `_listen` sees it, too
        pipe.send(answer)


def main(arguments: Sequence[str]) -> None:
    """Serve the pipe whose file descriptor is the one argument."""
    logs.configure()
    serve(Connection(int(arguments[0])))
    # At once: a thread that still builds an index would abort with the interpreter gone from it.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
