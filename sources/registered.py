"""Records that were written by schemas of a registry, as operators read them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clients.registry import Registry, Unreadable, schema_id
from operators.judging import identity_of, key_identity, parse_json, reject
from operators.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from operators.records import RecordBatch

__all__ = ["RegisteredValues"]


@dataclass(frozen=True)
class RegisteredValues:
    """Reads values, and keys where they are written so, by the registry's schemas.

    Args:
        registry: The registry.
        keys: Whether keys are written so, too; else they are text, or JSON where something is
            looked for inside them.
    """

    registry: Registry
    keys: bool = False

    def identity(self, key: bytes | None) -> str:
        """The document's id, where the whole key is that.

        Raises:
            Rejected: It is none.
        """
        if key is None or not self.keys:
            return key_identity(key, "document")
        return identity_of(self.key(key), "the key")

    def key(self, data: bytes) -> object:
        """What a key holds.

        Raises:
            Rejected: It can't be read.
        """
        return self._read(data, "bad_key", "key") if self.keys else parse_json(data, "the key")

    def value(self, data: bytes) -> object:
        """What a value holds.

        Raises:
            Rejected: It can't be read.
        """
        return self._read(data, "bad_schema", "value")

    def ahead(self, batch: RecordBatch) -> None:
        """Have all schemas of a batch at hand, so that nothing waits once it is being read.

        Raises:
            RegistryError: The registry was away for too long, or refused.
        """
        for number in {*_ids(batch.values), *_ids(batch.keys if self.keys else ())}:
            self.registry.load(number)

    def _read(self, data: bytes, code: str, what: str) -> Any:  # noqa: ANN401 - as JSON has it
        try:
            found = self.registry.read(data)
        except Unreadable as fault:
            reject(code, f"the {what}: {fault}")
        return plain(found)


def _ids(column: Iterable[bytes | None]) -> Iterable[int]:
    """The schemas that a column was written by; what is in no wire format has none."""
    for data in column:
        if data is not None:
            with suppress(Unreadable):
                yield schema_id(data)
