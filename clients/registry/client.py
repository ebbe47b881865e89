"""A schema registry, asked for schemas.

Each schema is fetched once, with all that it refers to, and kept: what reads a record never waits
for the registry once `Registry.load` has been told its schema. While the registry is away, what
needs it waits; what it does not know, or what does not fit, is the record's own fault.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError
from confluent_kafka.schema_registry.serde import SchemaId
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from clients.errors import RegistryError
from clients.kafka import CALL_TIMEOUT_S, REPORT_S, without_values
from clients.registry.protoc import ProtocError
from clients.registry.readers import Fetched, Reader, reader_of
from clients.registry.wire import Unreadable, in_short, schema_id
from headrace.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from confluent_kafka.schema_registry import RegisteredSchema
    from tenacity import RetryCallState

__all__ = ["Registry"]

log = structlog.get_logger(__name__)

Result = TypeVar("Result")

MOST_SCHEMAS: Final = 1000
"""How many schemas are kept; the one that was fetched first goes first."""

MOST_REFERENCES: Final = 500
"""How many other schemas one may refer to, by whatever way."""

UNKNOWN_S: Final = 10.0
"""How long an id that the registry did not know is not asked for again, in seconds."""

_MISSING: Final = frozenset({40401, 40402, 40403})
"""A registry's codes of a subject, a version and a schema that it has not. Any other 404 is of a
server that is none, or of another path than the registry's: no record is to blame for that."""

_AWAY: Final = frozenset({408, 429, 500, 502, 503, 504})
_REFUSED: Final = frozenset({401, 403})
_NUMBERS: Final = frozenset(
    {
        *("timeout", "max.retries", "retries.wait.ms", "retries.max.wait.ms"),
        *("cache.capacity", "cache.latest.ttl.sec"),
    }
)
"""The client's options that are numbers."""


class _UnansweredError(Exception):
    """The registry is away, or what answers is none."""


@dataclass
class Registry:
    """Reads records by the schemas of a registry; safe to be used by several threads.

    Args:
        url: Where it is; several with commas between.
        client: Options of Confluent's client.
        outage_s: How long it may be away, in seconds.
        pause: Waits for so many seconds while it is away.
        told: Told when it is away, and when it is there again.
    """

    url: str
    client: Mapping[str, str] = field(default_factory=dict, repr=False)  # it may hold secrets
    outage_s: float = 120.0
    pause: Callable[[float], None] = time.sleep
    told: Callable[..., None] = field(default=lambda **_: None)
    _readers: dict[int, Callable[[bytes], object]] = field(
        default_factory=dict, init=False, repr=False
    )
    _faults: dict[int, tuple[float, str]] = field(default_factory=dict, init=False, repr=False)
    _fetching: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._client = _made(self.url, self.client)

    def close(self) -> None:
        """Let go of its connections."""
        self._client.close()

    def load(self, number: int) -> None:
        """Have a schema at hand, unless there is none of this id; waits for the registry.

        Raises:
            RegistryError: The registry was away for `outage_s`, or refused.
        """
        with suppress(Unreadable):
            self._at_hand(number)

    def read(self, data: bytes) -> object:
        """What a record holds.

        Raises:
            Unreadable: There is no such schema, or the record does not fit it.
            RegistryError: The registry was away for `outage_s`, or refused.
        """
        return self._at_hand(schema_id(data))(data)

    def types(self) -> Sequence[str]:
        """The kinds of schema that it knows.

        Raises:
            RegistryError: The registry was away for `outage_s`, or refused.
        """
        try:
            return list(self._ask("asking for its types", self._client.get_schema_types))
        except SchemaRegistryError as error:
            raise RegistryError(self._stranger(error)) from error

    def has(self, topic: str, text: str) -> bool:
        """Whether a schema is there, under the subject of a topic's values.

        Args:
            topic: The topic.
            text: The schema, a source text of Protobuf.

        Raises:
            RegistryError: The registry was away for `outage_s`, or refused.
        """
        try:
            self._registered(topic, text, self._client.lookup_schema)
        except SchemaRegistryError as error:
            self._must_be_missing(error)
            return False
        return True

    def framing(self, topic: str, text: str, *, register: bool) -> bytes:
        """What stands before each of a topic's messages; their schema is in the registry.

        Args:
            topic: The topic, whose subject is that of its values.
            text: The schema, a source text of Protobuf; messages are of the first in it.
            register: Whether to put the schema there.

        Raises:
            RegistryError: The schema is missing or refused, or the registry is away.
        """
        client = self._client
        call = client.register_schema_full_response if register else client.lookup_schema
        try:
            found = self._registered(topic, text, call)
        except SchemaRegistryError as error:
            told = f"subject {topic}-value: {_reason(error)}"
            if register:
                raise RegistryError(
                    self._error(f"{told}; the schema of embeddings must be allowed there")
                ) from error
            raise RegistryError(
                f"embeddings.register_schema: false: {told}; register "
                "proto/headrace/v1/embedding.proto, or set it to true"
            ) from error
        return SchemaId("PROTOBUF", found.schema_id, None, [0]).id_to_bytes()

    def _registered(
        self, topic: str, text: str, call: Callable[[str, Schema], RegisteredSchema]
    ) -> RegisteredSchema:
        subject, schema = f"{topic}-value", Schema(text, "PROTOBUF")
        return self._ask(f"the schema of {subject}", lambda: call(subject, schema))

    def _at_hand(self, number: int) -> Callable[[bytes], object]:
        """What reads the records of a schema; waits for the registry where it is not here.

        Raises:
            Unreadable: There is no such schema, or it can't be used.
            RegistryError: The registry was away for `outage_s`, or refused.
        """
        reader = self._readers.get(number)
        if reader is not None:
            return reader
        with self._fetching:
            return self._readers.get(number) or self._fetch(number)

    def _fetch(self, number: int) -> Callable[[bytes], object]:
        until, told = self._faults.get(number, (0.0, ""))
        if time.monotonic() < until:
            raise Unreadable(told)
        try:
            reader = self._reader(number)
        except Unreadable as error:
            if len(self._faults) >= MOST_SCHEMAS:
                self._faults.clear()
            self._faults[number] = time.monotonic() + UNKNOWN_S, str(error)
            raise
        finally:
            # It would keep all that it ever saw.
            self._client.clear_caches()  # type: ignore[no-untyped-call]
        if len(self._readers) >= MOST_SCHEMAS:
            del self._readers[next(iter(self._readers))]
        self._readers[number] = reader
        return reader

    def _reader(self, number: int) -> Callable[[bytes], object]:
        """What reads the records of a schema.

        Raises:
            Unreadable: There is no such schema, or it can't be used.
        """
        try:
            schema = self._ask(f"schema {number}", lambda: self._client.get_schema(number))
        except SchemaRegistryError as error:
            self._must_be_missing(error)
            raise Unreadable(f"schema {number}: the registry has none: {_reason(error)}") from error
        name = f"schema {number}{self._subjects(number)}"
        try:
            fetched = Fetched(schema, self._references(schema))
            read = reader_of(fetched)
        except (SchemaRegistryError, ProtocError, ValueError) as error:
            raise Unreadable(f"{name}: can't be used: {_reason(error)}") from error
        return Reader(name, read)

    def _subjects(self, number: int) -> str:
        """The subjects that a schema is registered under, for a person; empty where unknown."""
        ask = self._client.get_schema_versions
        try:
            found = self._ask(f"subjects of schema {number}", lambda: ask(number))
        except SchemaRegistryError:
            return ""  # not every registry tells
        shown = ", ".join(f"{one.subject} version {one.version}" for one in found[:3])
        return f" ({in_short(ValueError(shown))})" if shown else ""

    def _references(self, schema: Schema) -> dict[tuple[str, int], RegisteredSchema]:
        """All schemas that one refers to, by subject and version."""
        found: dict[tuple[str, int], RegisteredSchema] = {}
        wanted = list(schema.references or ())
        while wanted:
            one = wanted.pop()
            place = str(one.subject), int(one.version or 0)
            if place in found:
                continue
            if len(found) >= MOST_REFERENCES:
                raise ValueError(f"refers to more than {MOST_REFERENCES} others")
            found[place] = self._version(*place)
            wanted += found[place].schema.references or ()
        return found

    def _version(self, subject: str, version: int) -> RegisteredSchema:
        what = f"version {version} of {subject}"
        return self._ask(what, lambda: self._client.get_version(subject, version, deleted=True))

    def _ask(self, what: str, call: Callable[[], Result]) -> Result:
        """Ask the registry; while it is away, try again with growing pauses.

        Raises:
            RegistryError: It was away for `outage_s`, or refused the login.
            SchemaRegistryError: It has not what is asked for.
        """
        report = _Report(self.url, what, self.told)
        attempts = Retrying(
            retry=retry_if_exception_type(_UnansweredError),
            stop=stop_after_delay(self.outage_s),
            wait=wait_exponential_jitter(multiplier=0.1, max=2.0, jitter=0.1),
            sleep=self.pause,
            before_sleep=report,
            reraise=True,
        )
        try:
            answer: Result = attempts(self._once, call)
        except _UnansweredError as error:
            told = f"no answer for {self.outage_s:.0f} s: {error}"
            raise RegistryError(self._error(f"{what}: {told}")) from error
        finally:
            report.end()
        return answer

    def _once(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except SchemaRegistryError as error:
            if error.http_status_code in _AWAY:
                raise _UnansweredError(self._safe(_reason(error))) from error
            if error.http_status_code in _REFUSED:
                raise RegistryError(
                    f"registry.client: {self.url}: refused: {self._safe(_reason(error))}; set "
                    "registry.client.basic.auth.user.info, or give that user the right to read"
                ) from error
            raise
        except Exception as error:  # whatever the HTTP client and its parser have
            raise _UnansweredError(self._safe(_reason(error))) from error

    def _must_be_missing(self, error: SchemaRegistryError) -> None:
        """Raise what says something else than that there is no such schema."""
        if error.error_code not in _MISSING:
            raise RegistryError(self._stranger(error)) from error

    def _stranger(self, error: SchemaRegistryError) -> str:
        told = f"answers {error.http_status_code}, as no schema registry does: {_reason(error)}"
        return self._error(f"{told}; set it to the address of one")

    def _error(self, told: str) -> str:
        return f"registry.url: {self.url}: {self._safe(told)}"

    def _safe(self, text: str) -> str:
        return without_values(text, self.client)


def _made(url: str, options: Mapping[str, str]) -> SchemaRegistryClient:
    """A client, or the error that names what it refuses, not its value."""
    try:
        # Its own attempts would be beside ours, and without a time-out it waits for ever.
        own = {"url": url, "timeout": CALL_TIMEOUT_S, "max.retries": 0}
        return SchemaRegistryClient({**own, **dict(_typed(options))})
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(f"registry.client: {without_values(_reason(error), options)}") from error


def _typed(options: Mapping[str, str]) -> Iterator[tuple[str, str | float]]:
    for name, value in options.items():
        yield name, float(value) if name in _NUMBERS else value


def _reason(error: BaseException) -> str:
    """What is said, in one line."""
    if isinstance(error, SchemaRegistryError):
        return in_short(ValueError(error.error_message))
    return in_short(error)


class _Report:
    """Names a registry that is away in the log: at once, then once a minute."""

    def __init__(self, url: str, what: str, told: Callable[..., None]) -> None:
        self._url = url
        self._what = what
        self._told = told
        self._last = 0.0

    def __call__(self, state: RetryCallState) -> None:
        """It did not answer."""
        now = time.monotonic()
        if self._last and now - self._last < REPORT_S:
            return
        self._told(away=True)
        self._last = now
        error = state.outcome.exception() if state.outcome else None
        log.warning("registry away", url=self._url, stage=self._what, error=str(error))

    def end(self) -> None:
        """No more is asked."""
        if self._last:
            self._told(away=False)
