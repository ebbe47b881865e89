"""`headrace topics`: makes the topics that a flow reads and writes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

from cli.broker import connect, resource_settings
from cli.output import emit, say
from clients.errors import BrokerError
from clients.kafka import CALL_TIMEOUT_S
from flows.access import max_message_bytes, model_source_of
from operators.model import open_bundle

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from confluent_kafka.admin import AdminClient

    from clients.kafka import KafkaConfig
    from flows.settings import Settings

__all__ = ["Topic", "create", "create_all", "show"]

DEAD_LETTER_PARTITIONS: Final = 1
DEAD_LETTER_RETENTION_MS: Final = 30 * 86_400_000
BROKER_DEFAULT: Final = -1
SETTLE_S: Final = 0.05
KAFKA_MESSAGE_BYTES: Final = 1_048_588
"""What Kafka takes unless it is told otherwise."""

LARGE_DIMENSION: Final = 8192
"""More than models have: messages that fit at this size fit whatever the model is."""


@dataclass(frozen=True)
class Topic:
    """A topic that the settings ask for.

    Attributes:
        name: Its name.
        partitions: How many it has, or is to have.
        config: What it is made with, beside the broker's defaults; empty where it was there.
        made: Whether this command made it.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    made: bool = True


def create_all(settings: Settings, partitions: int, replication: int | None) -> list[Topic]:
    """Make those topics of all pipelines that are missing; see `create`."""
    topics: dict[str, Topic] = {}
    for one in settings.each():
        for topic in create(one, partitions, replication):
            topics.setdefault(topic.name, topic)
    return list(topics.values())


def create(
    settings: Settings,
    partitions: int,
    replication: int | None,
    only: Collection[str] | None = None,
) -> list[Topic]:
    """Make those topics that are missing.

    Args:
        settings: They name the topics.
        partitions: Of a source topic, and of embeddings.
        replication: Copies of each partition; the broker's default unless given.
        only: Those that are looked at; all that the settings name unless given.

    Returns:
        All topics, made or found.

    Raises:
        BrokerError: The broker can't be reached, or refuses.
    """
    kafka = connect(settings)
    admin = kafka.admin()
    wanted = _wanted(settings, _sized(settings, kafka, admin))
    present = kafka.partitions(wanted)
    if only is not None:
        wanted = {name: config for name, config in wanted.items() if name in only}
    sources = {name: len(present.get(name, range(partitions))) for name in _sources(settings)}
    topics: list[Topic] = []
    for name, config in wanted.items():
        if name in present:
            topics.append(Topic(name, len(present[name]), made=False))
            continue
        count = sources.get(name, max(sources.values()))
        if name == settings.dead_letters.topic:
            count = DEAD_LETTER_PARTITIONS
        topics.append(_make(kafka, admin, Topic(name, count, config), replication))
    _settle(kafka, [topic.name for topic in topics])
    return topics


def show(topics: list[Topic], *, as_json: bool) -> None:
    """Print what was made and what was there."""
    if as_json:
        emit([asdict(topic) for topic in topics])
        return
    for topic in topics:
        config = "".join(f", {name}={value}" for name, value in topic.config.items())
        count = f"{topic.partitions} partition{'s' * (topic.partitions != 1)}"
        say(f"{'made' if topic.made else 'was there'}: {topic.name}, {count}{config}")


def _sources(settings: Settings) -> list[str]:
    """The topics that flows read."""
    recommend = settings.recommend
    return [*settings.source.topics, recommend.views_topic, recommend.inventory_topic]


def _wanted(settings: Settings, sized: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Each topic's settings, beside the broker's defaults."""
    recommend = settings.recommend
    compacted = {"cleanup.policy": "compact", **sized}
    outputs = (settings.embeddings.topic, recommend.embeddings_topic, recommend.users_topic)
    kept = {"cleanup.policy": "delete", "retention.ms": str(DEAD_LETTER_RETENTION_MS)}
    return {
        **{name: dict(sized) for name in _sources(settings)},
        **{name: dict(compacted) for name in outputs},
        settings.dead_letters.topic: {**kept, **sized},
    }


def _sized(settings: Settings, kafka: KafkaConfig, admin: AdminClient) -> dict[str, str]:
    """The setting that lets the largest record in, where the broker's default does not."""
    least = _broker_bytes(kafka, admin)
    if max_message_bytes(settings, LARGE_DIMENSION) <= least:
        return {}  # without a look at the model, which may have to be fetched for it
    size = max_message_bytes(settings, open_bundle(model_source_of(settings)).dimension)
    return {"max.message.bytes": str(size)} if size > least else {}


def _broker_bytes(kafka: KafkaConfig, admin: AdminClient) -> int:
    """The largest message that a topic takes by default."""
    found = kafka.patiently("asking", lambda: admin.list_topics(timeout=CALL_TIMEOUT_S))
    sizes = []
    for broker in found.brokers:
        try:
            held = resource_settings(kafka, admin, ConfigResource("broker", str(broker)))
        except BrokerError:
            return KAFKA_MESSAGE_BYTES  # a right that topics can be made without
        sizes.append(int(held.get("message.max.bytes", KAFKA_MESSAGE_BYTES)))
    return min(sizes, default=KAFKA_MESSAGE_BYTES)


def _make(kafka: KafkaConfig, admin: AdminClient, topic: Topic, replication: int | None) -> Topic:
    new = NewTopic(
        topic.name,
        topic.partitions,
        BROKER_DEFAULT if replication is None else replication,
        config=dict(topic.config),
    )

    def ask() -> None:
        admin.create_topics([new], request_timeout=CALL_TIMEOUT_S)[topic.name].result()

    try:
        kafka.patiently(f"making topic {topic.name}", ask, f"Create on topic {topic.name}")
    except BrokerError as error:
        if _is_there(error.__cause__):  # another made it meanwhile
            return Topic(topic.name, topic.partitions, made=False)
        raise
    return topic


def _settle(kafka: KafkaConfig, names: list[str]) -> None:
    """Wait until the brokers tell of new topics, so that the next command finds them."""
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while len(kafka.partitions(names)) < len(names) and time.monotonic() < deadline:
        time.sleep(SETTLE_S)


def _is_there(error: BaseException | None) -> bool:
    return (
        isinstance(error, KafkaException)
        and isinstance(error.args[0], KafkaError)
        and error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    )
