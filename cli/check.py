"""`headrace check`: all that a flow needs, looked at before it starts."""

from __future__ import annotations

import tempfile
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from confluent_kafka.admin._config import ConfigResource

from cli.broker import connect, resource_settings
from cli.output import emit, say
from clients.errors import BrokerError, RegistryError
from clients.kafka import CALL_TIMEOUT_S
from flows.access import (
    embedding_topics,
    encoder_of,
    max_message_bytes,
    model_source_of,
    recommending_tables,
    recommending_topics,
    table_of,
)
from flows.decoding import check_plan, decoder_of
from flows.registering import embedding_schema, registry_of, values_of
from flows.sampling import fit_of, tried
from headrace.errors import HeadraceError, UsageError
from operators.model import describe
from operators.records import Lane
from sinks.errors import SinkError
from sinks.routed import RoutedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from clients.kafka import KafkaConfig
    from clients.registry import Registry
    from flows.access import Topics
    from flows.settings import Settings
    from operators.model import Encoder
    from sinks.store import TableStore

__all__ = ["Flow", "Item", "examine", "flow_of", "show"]

Flow = Literal["embed", "recommend"]
State = Literal["ok", "warning", "problem"]

STYLES: Final[dict[State, str]] = {"ok": "green", "warning": "yellow", "problem": "bold red"}

FLOWS: Final[dict[str, Flow]] = {"embed": "embed", "recommend": "recommend"}
SOURCES: Final = {"source.topics", "recommend.views_topic", "recommend.inventory_topic"}
COMPACTED: Final = {"embeddings.topic", "recommend.embeddings_topic", "recommend.users_topic"}

DIMENSION: Final = 1024
"""Taken for the size of messages while the model itself is not to be had."""


@dataclass(frozen=True)
class Item:
    """What was found of one thing."""

    name: str
    state: State
    message: str


def flow_of(name: str) -> Flow:
    """The flow of that name.

    Raises:
        UsageError: There is none.
    """
    if name not in FLOWS:
        raise UsageError(f"FLOW: {name}: is neither embed nor recommend")
    return FLOWS[name]


def examine(load: Callable[[], Settings], flow: Flow = "embed") -> Iterator[Item]:
    """What was found of each thing, good or bad, as soon as it is known.

    Args:
        load: Gives the settings.
        flow: Whose topics and tables.
    """
    try:
        settings = load()
        pipelines = settings.each() if flow == "embed" else (settings,)
        for one in pipelines:
            check_plan(one)
        kafka = connect(settings)
        registries = [registry_of(one, kafka.outage_s) for one in pipelines]
    except HeadraceError as error:
        yield Item("settings", "problem", str(error))
        return
    yield Item("settings", "ok", "valid")
    for one, registry in zip(pipelines, registries, strict=True):
        for item in _pipeline(one, kafka, registry, flow):
            yield replace(item, name=f"{one.name}: {item.name}") if one.name else item


def _pipeline(
    settings: Settings, kafka: KafkaConfig, registry: Registry | None, flow: Flow
) -> Iterator[Item]:
    """What was found of each thing of one pipeline."""
    model, encoder = _model(settings)
    topics = embedding_topics(settings) if flow == "embed" else recommending_topics(settings)
    size = max_message_bytes(settings, encoder.dimension if encoder else DIMENSION)
    reached = True
    for item in _broker(kafka, topics, size):
        yield item
        reached = reached and item.state != "problem"
    with nullcontext() if registry is None else closing(registry):
        if registry is not None:
            yield from _schemas(registry, settings, topics)
        if reached and flow == "embed" and tried(settings):
            yield _records(kafka, settings, registry, topics)
    yield model
    if encoder is None:
        yield Item("table", "warning", "not looked at: what fits it depends on the model")
        return
    for store in _tables(settings, encoder, flow):
        yield _table(store)


def show(items: Iterator[Item], *, as_json: bool) -> bool:
    """Print what was found.

    Returns:
        Whether there is no problem.
    """
    found: list[Item] = []
    for item in items:
        found.append(item)
        if not as_json:
            say(f"{item.state:<8} {item.name}: {item.message}", STYLES[item.state])
    if as_json:
        emit([asdict(item) for item in found])
    return all(item.state != "problem" for item in found)


def _broker(kafka: KafkaConfig, topics: Topics, size: int) -> Iterator[Item]:
    """The broker, and each topic on it, whose records may have so many bytes."""
    names = [*topics.sources, *topics.outputs]
    admin = kafka.admin()
    try:
        found = kafka.patiently("asking", lambda: admin.list_topics(timeout=CALL_TIMEOUT_S))
    except BrokerError as error:
        yield Item("kafka", "problem", str(error))
        return
    count = f"{len(found.brokers)} broker{'s' * (len(found.brokers) != 1)}"
    yield Item("kafka", "ok", f"{count} at {kafka.bootstrap_servers}")
    for setting, topic in names:
        yield _topic(kafka, setting, topic, topics.rights[topic], size)


def _topic(kafka: KafkaConfig, setting: str, topic: str, operation: str, size: int) -> Item:
    name = f"{setting} {topic}"
    try:
        kafka.demand({topic: operation})
        partitions = kafka.partitions([topic]).get(topic)
    except BrokerError as error:
        return Item(name, "problem", str(error))
    if partitions is None:
        return Item(name, "problem", "there is no such topic; make it: headrace topics create")
    try:
        held = resource_settings(kafka, kafka.admin(), ConfigResource("topic", topic))
    except BrokerError as error:
        return Item(name, "warning", f"its settings can't be looked at: {error}")
    wrong = list(_unfit(setting, held, size))
    if not wrong:
        return Item(name, "ok", f"{len(partitions)} partition{'s' * (len(partitions) != 1)}")
    change = ",".join(wanted for _, wanted in wrong)
    return Item(
        name,
        "warning",
        f"{'; '.join(fault for fault, _ in wrong)}; set it: kafka-configs.sh --alter "
        f"--entity-type topics --entity-name {topic} --add-config {change}",
    )


def _unfit(setting: str, held: dict[str, str], size: int) -> Iterator[tuple[str, str]]:
    """What does not fit of a topic's settings, and what should stand there."""
    policy = held.get("cleanup.policy", "")
    if setting in COMPACTED and policy != "compact":
        yield (
            f"cleanup.policy is {policy}, which keeps what is stale or drops what is not",
            ("cleanup.policy=compact"),
        )
    if setting == "dead_letters.topic" and "compact" in policy:
        yield (
            f"cleanup.policy is {policy}, which refuses records without a key",
            ("cleanup.policy=delete"),
        )
    largest = int(held.get("max.message.bytes", size))
    if setting not in SOURCES and largest < size:
        yield (
            f"max.message.bytes is {largest}, a record may have {size}",
            (f"max.message.bytes={size}"),
        )


def _schemas(registry: Registry, settings: Settings, topics: Topics) -> Iterator[Item]:
    """The schema registry, and the schema of each topic of embeddings in it."""
    try:
        yield Item("registry", "ok", f"{', '.join(sorted(registry.types()))} at {registry.url}")
        if settings.embeddings.encoding == "registry":
            for setting, topic in topics.outputs:
                if setting != "dead_letters.topic":
                    yield _schema(registry, settings, f"{setting} {topic}", topic)
    except RegistryError as error:
        yield Item("registry", "problem", str(error))


def _schema(registry: Registry, settings: Settings, name: str, topic: str) -> Item:
    if registry.has(topic, embedding_schema()):
        return Item(name, "ok", f"its schema is in subject {topic}-value")
    told = f"its schema is not in subject {topic}-value"
    if settings.embeddings.register_schema:
        return Item(name, "ok", f"{told} yet; the flow will put it there")
    return Item(name, "problem", f"{told}; register it, or set embeddings.register_schema to true")


def _records(
    kafka: KafkaConfig, settings: Settings, registry: Registry | None, topics: Topics
) -> Item:
    """Whether the newest records of the source are what the settings say."""
    try:
        found = kafka.partitions({topic for _, topic in topics.sources})
        lanes = [Lane(topic, one) for topic in sorted(found) for one in found[topic]]
        fit = fit_of(kafka, lanes, decoder_of(settings, values_of(settings, registry)))
    except HeadraceError as error:
        return Item("records", "problem", str(error))
    if not fit.records:
        return Item("records", "warning", f"there are none yet to try {tried(settings)} on")
    state: State = "problem" if fit.none_fits else "warning" if fit.fault else "ok"
    return Item("records", state, str(fit))


def _model(settings: Settings) -> tuple[Item, Encoder | None]:
    try:
        encoder = encoder_of(settings)
        encoder.encode(["Is it there?"])
        model = settings.model
        told = describe(
            model_source_of(settings),
            runtime=model.runtime,
            precision=model.precision,
            least_agreement=model.least_agreement,
        )
    except HeadraceError as error:
        return Item("model", "problem", str(error)), None
    message = (
        f"{encoder.name} ({encoder.fingerprint}): {encoder.dimension} dimensions, "
        f"{told['runtime']} {told['precision']}"
    )
    return Item("model", "ok", message), encoder


def _tables(settings: Settings, encoder: Encoder, flow: Flow) -> Iterable[TableStore | RoutedStore]:
    if flow == "embed":
        return [table_of(settings, encoder)]
    return recommending_tables(settings, encoder).values()


def _table(store: TableStore | RoutedStore) -> Item:
    name = f"table {store.name}"
    try:
        if store.exists():
            change = store.look()
            rows = store.count()
            told = f"{rows:,} row{'s' * (rows != 1)} in {store.uri}"
            if isinstance(store, RoutedStore):
                return _several(store, name, told, change)
            return Item(name, "ok", f"{told}; {change}" if change else told)
        if store.is_local:
            _probe(store.uri)
    except HeadraceError as error:
        return Item(name, "problem", str(error))
    return Item(name, "ok", f"not there yet; the flow will make it in {store.uri}")


def _several(store: RoutedStore, name: str, told: str, change: str) -> Item:
    """What was found of several tables that fit."""
    number, most = len(store.tables()), store.max_tables
    told = f"{number:,} of {most:,} tables, {told}"
    told += f"; {change}" * bool(change)
    if number < most:
        return Item(name, "ok", told)
    return Item(name, "warning", f"{told}; one more ends the flow: set a higher table.max_tables")


def _probe(uri: str) -> None:
    """Find out whether a folder could be made and written, without making it.

    Raises:
        SinkError: It could not.
    """
    folder = Path(uri).absolute()
    folder = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SinkError(
            f"table.uri: {uri}: {folder} can't be written: {error.strerror}; set another folder "
            "or mend its rights or space"
        ) from error
