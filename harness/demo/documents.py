"""Texts that every machine has, changes of them, and what must become of both."""

from __future__ import annotations

import json
import random
import sys
import warnings
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from harness.demo.background import Background
from harness.texts import Docstring, docstrings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.audit import Given

__all__ = ["Gathering", "Record", "changes", "gather", "metadata_of", "outcomes", "record_of"]

LEAST_CHANGES: Final = 200

Record = tuple[bytes, bytes | None]
"""A key and a value."""


def gather(count: int) -> list[Docstring]:
    """Texts of the standard library and of installed packages, two to one where there are enough.

    They are spread over all of the library and as much of the packages as it takes, in an order
    that is always the same.
    """
    library: list[Docstring] = []
    packages: list[Docstring] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what compilers think of other people's code
        for found in docstrings():
            if found.text.encode(errors="ignore").decode() == found.text:
                ours = found.package in sys.stdlib_module_names
                (library if ours else packages).append(found)
            if len(packages) >= count:
                break
    share = min(len(library), max(count * 2 // 3, count - len(packages)))
    chosen = _spread(library, share) + _spread(packages, count - share)
    random.Random(1).shuffle(chosen)  # noqa: S311 - reproducible, not secret
    return chosen


class Gathering(Background):
    """Gathers texts beside something else.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        super().__init__("demo-texts")
        self._count = count
        self._found: Future[list[Docstring]] = Future()

    def result(self) -> list[Docstring]:
        """The texts, once they are there."""
        return self._found.result()

    def _run(self) -> None:
        try:
            self._found.set_result(gather(self._count))
        except BaseException as error:  # noqa: BLE001 - raised where the texts are wanted
            self._found.set_exception(error)


def _spread(items: Sequence[Docstring], count: int) -> list[Docstring]:
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def metadata_of(found: Docstring) -> dict[str, object]:
    """The metadata of a docstring's document."""
    return {"package": found.package, "module": found.module, "kind": found.kind}


def record_of(found: Docstring, text: str | None = None) -> Record:
    """The record of a docstring."""
    value = {"text": text or found.text, "metadata": metadata_of(found)}
    return found.id.encode(), json.dumps(value).encode()


def changes(documents: Sequence[Docstring]) -> list[Record]:
    """Changes and deletions of a quarter of the documents.

    Half of them are new texts, a quarter is metadata alone, a quarter deletions; a deleted
    document that is drawn again comes back.
    """
    chooser = random.Random(2)  # noqa: S311 - reproducible, not secret
    touched = documents[: len(documents) // 4]
    dead: set[str] = set()
    made: list[Record] = []
    for revision in range(max(LEAST_CHANGES, len(touched))):
        found = chooser.choice(touched)
        draw = chooser.random()
        if draw >= 0.5 or found.id in dead:
            dead.discard(found.id)
            made.append(record_of(found, f"{found.text}\n\nRevision {revision}."))
        elif draw >= 0.25:
            value = {"metadata": {**metadata_of(found), "revision": revision}}
            made.append((found.id.encode(), json.dumps(value).encode()))
        else:
            dead.add(found.id)
            made.append((found.id.encode(), None))
    return made


def outcomes(given: Sequence[Given]) -> list[Given]:
    """What must become of the demo's records, all of which are good ones."""
    return [
        replace(record, expect="tombstone" if record.value is None else "embedding")
        for record in given
    ]
