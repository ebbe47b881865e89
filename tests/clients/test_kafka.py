from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from clients.errors import BrokerError
from clients.kafka import AWAY, KafkaConfig, is_away, reason
from tests.brokers import config_of, send_values, topic_on

if TYPE_CHECKING:
    from harness.broker import Broker


def failing(code: int, times: int) -> tuple[list[int], Any]:
    """A call that fails so often, then answers; and how often it was made."""
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise KafkaException(KafkaError(code))
        return "answer"

    return calls, call


CONFIG = KafkaConfig("nowhere:1", "app", outage_s=0.5)


@pytest.mark.parametrize("code", sorted(AWAY))
def test_away(code: int) -> None:
    """A broker that is away or starting is told from a call that is wrong."""
    assert is_away(KafkaException(KafkaError(code)))


@pytest.mark.parametrize(
    "error",
    [
        KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)),
        KafkaException(KafkaError(KafkaError._FENCED)),
        KafkaException(),
        KafkaException("text"),
        ValueError("text"),
    ],
)
def test_not_away(error: BaseException) -> None:
    """A refusal, a fenced producer or anything else is not to be tried again."""
    assert not is_away(error)
    assert "\n" not in reason(error)


def test_patiently_tries_again() -> None:
    """A call to a broker that is away is made again until it answers."""
    calls, call = failing(KafkaError._TRANSPORT, 2)
    assert KafkaConfig("nowhere:1", "app", outage_s=20).patiently("asking", call) == "answer"
    assert len(calls) == 3


def test_patiently_gives_up() -> None:
    """A broker that stays away is one line that names it, what was asked, and for how long."""
    _, call = failing(KafkaError._TRANSPORT, 1000)
    started = time.monotonic()
    with pytest.raises(BrokerError) as told:
        CONFIG.patiently("asking", call)
    assert time.monotonic() - started < 10
    assert str(told.value).startswith(
        "kafka.bootstrap_servers: nowhere:1: asking: no answer for 0 s: "
    )


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (KafkaError.POLICY_VIOLATION, "asking: refused: "),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "asking: no right to Read on group app: "),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "asking: refused: "),
    ],
)
def test_patiently_takes_a_refusal_for_one(code: int, told: str) -> None:
    """A refusal is told at once, by the right that is missing where that is known."""
    calls, call = failing(code, 1000)
    with pytest.raises(BrokerError, match=told):
        CONFIG.patiently("asking", call)
    assert len(calls) == 1


def test_patiently_lets_other_errors_through() -> None:
    """What is no answer of a broker is not its fault."""

    def call() -> None:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        CONFIG.patiently("asking", call)


def test_clients_values_win_over_ours_and_stay_hidden() -> None:
    """`kafka.client` is passed on, wins over defaults, and is in no representation."""
    config = KafkaConfig("a:1", "app", {"client.id": "mine", "sasl.password": "hunter2"})
    common = config._common()
    assert (common["client.id"], common["sasl.password"]) == ("mine", "hunter2")
    assert "hunter2" not in f"{config} {config!r}"


def consumer_of(offset: int, error: KafkaError | None) -> Consumer:
    """A consumer that gives one answer about the committed offset."""

    def committed(wanted: list[TopicPartition], timeout: float) -> list[Any]:
        assert timeout
        [where] = wanted
        return [SimpleNamespace(topic=where.topic, offset=offset, error=error)]

    return cast("Consumer", SimpleNamespace(committed=committed))


def test_committed() -> None:
    """A group without a committed offset has none; zero is an offset."""
    assert CONFIG.committed(consumer_of(-1001, None), "t", 0) is None
    assert CONFIG.committed(consumer_of(0, None), "t", 0) == 0


@pytest.mark.parametrize(
    "code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART]
)
def test_a_partitions_error_is_not_no_offset(code: int) -> None:
    """An offset that can't be read is an error; taken for none, all would be sent twice."""
    with pytest.raises(BrokerError):
        CONFIG.committed(consumer_of(-1001, KafkaError(code)), "t", 0)


@pytest.mark.kafka
def test_partitions(broker: Broker) -> None:
    """The partitions of the topics that exist; one that doesn't is left out."""
    topic = topic_on(broker, partitions=3)
    assert config_of(broker).partitions([topic, "no-such-topic"]) == {topic: [0, 1, 2]}


@pytest.mark.kafka
def test_committed_of_a_real_group(broker: Broker) -> None:
    """What a group committed is what is read; another group's is not."""
    topic = topic_on(broker)
    send_values(broker, topic, b"a", b"b")
    config = config_of(broker)
    consumer = config.consumer()
    assert config.committed(consumer, topic, 0) is None
    consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    assert config.committed(consumer, topic, 0) == 2
    other = config_of(broker)
    other_consumer = other.consumer()
    assert other.committed(other_consumer, topic, 0) is None
    consumer.close()
    other_consumer.close()
