"""Several pipelines of one settings file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.settings import Settings, load
from headrace.errors import UsageError

FOLDER = Path("/nonexistent")
PAIR: list[dict[str, Any]] = [
    {"name": "tickets", "source": {"topics": ["tickets"]}},
    {"name": "old-orders", "source": {"topics": ["orders"]}, "batch": {"rows": 7}},
]

# Settings that any pipeline may have, and values that each can take.
VALUES: dict[tuple[str, str], st.SearchStrategy[Any]] = {
    ("source", "topics"): st.lists(st.sampled_from("abc"), min_size=1, unique=True),
    ("source", "max_in_flight"): st.integers(1, 9999),
    ("table", "columns"): st.dictionaries(st.sampled_from(["p", "q"]), st.just("string")),
    ("table", "index_rows"): st.integers(1000, 9999),
    ("model", "name"): st.sampled_from(["one", "two"]),
    ("model", "max_tokens"): st.integers(8, 99),
    ("batch", "rows"): st.integers(1, 99),
    ("embeddings", "dtype"): st.sampled_from(["float16", "float32"]),
    ("dead_letters", "topic"): st.sampled_from(["dead", "other.dead"]),
}


@st.composite
def chosen(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Some settings, by section."""
    found: dict[str, dict[str, Any]] = {}
    for section, key in draw(st.sets(st.sampled_from(sorted(VALUES)))):
        found.setdefault(section, {})[key] = draw(VALUES[section, key])
    return found


def read(pipelines: object = PAIR, **variables: str) -> Settings:
    """The settings with some pipelines, and what variables say."""
    environ = {"PIPELINES": json.dumps(pipelines), **variables}
    return load({f"HEADRACE_{name}": value for name, value in environ.items()}, FOLDER)


def refused(pipelines: object = PAIR, **variables: str) -> str:
    """How they are refused: one line."""
    with pytest.raises(UsageError) as told:
        read(pipelines, **variables)
    assert "\n" not in str(told.value)
    return str(told.value)


def plain(value: object) -> object:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


@given(shared=chosen(), first=chosen(), second=chosen())
def test_own_settings_come_before_those_of_all(
    shared: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Each pipeline has its own value of a key, else that of all, else the default."""
    pipelines = [{"name": "a1", **first}, {"name": "b1", **second}]
    whole = Settings.model_validate({**shared, "pipelines": pipelines})
    bare = Settings()
    for own, settings in zip((first, second), whole.each(), strict=True):
        for section, key in VALUES:
            wanted = getattr(getattr(bare, section), key)
            if (section, key) == ("dead_letters", "topic"):
                wanted = f"{settings.name}.dead-letters"
            for given_ in (shared, own):
                wanted = given_.get(section, {}).get(key, wanted)
            assert plain(getattr(getattr(settings, section), key)) == plain(wanted)
        assert settings.kafka.application_id == f"headrace-{settings.name}"
        assert settings.embeddings.topic == f"{settings.name}.embeddings"
        assert settings.table.name == settings.name
        assert not settings.pipelines
    # What none of them can have of its own is the same.
    assert all(one.serve == whole.serve and one.auth == whole.auth for one in whole.each())


@given(shared=chosen())
def test_without_pipelines_nothing_changes(shared: dict[str, Any]) -> None:
    """Settings that name no pipeline are those of the one flow, under no name."""
    settings = Settings.model_validate(shared)
    assert settings.each() == (settings,)
    assert not settings.name


def test_names_say_which_are_meant() -> None:
    """`pipeline` chooses, in the order of the file; unless given all are meant."""
    assert [one.name for one in read().each()] == ["tickets", "old-orders"]
    assert [one.name for one in read(PIPELINE="old-orders").each()] == ["old-orders"]
    both = read(PIPELINE="old-orders, tickets")
    assert [one.name for one in both.each()] == ["tickets", "old-orders"]


def test_what_is_shared_is_judged_in_each() -> None:
    """What goes with a text may be set for all, where each pipeline has a text of its own."""
    texts = {f"PIPELINES__{name}__SOURCE__TEXT": "/t" for name in ("TICKETS", "OLD_ORDERS")}
    whole = read(SOURCE__FORMAT="debezium", SOURCE__MARKUP="html", **texts)
    assert {one.source.format for one in whole.each()} == {"debezium"}
    assert all(one.reuses for one in whole.each())


def test_the_file_has_pipelines(tmp_path: Path) -> None:
    """A `[[pipelines]]` of the file is one; a variable sets a key of it, or all of them anew."""
    (tmp_path / "headrace.toml").write_text(
        'batch.rows = 3\n[[pipelines]]\nname = "old-orders"\nsource.topics = ["orders"]\n'
        '[pipelines.table]\ncolumns = {price = "float64"}\n'
    )
    key = "HEADRACE_PIPELINES__OLD_ORDERS__TABLE__NAME"
    [own] = load({key: "kept", "HEADRACE_BATCH__ROWS": "9"}, tmp_path).each()
    assert (own.source.topics, own.table.name, own.batch.rows) == (("orders",), "kept", 9)
    assert own.table.columns == {"price": "float64"}
    [other] = load({"HEADRACE_PIPELINES": '[{"name": "b"}]'}, tmp_path).each()
    assert other.name == "b"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"PIPELINE": "ticket"}, "pipeline: 'ticket': there is no such pipeline; there are tick"),
        ({"PIPELINES": "[{"}, "pipelines: "),
        ({"PIPELINES": "{}"}, "pipelines: "),
        ({"PIPELINES__X__TABLE__NAME": "x"}, "pipelines.x: there is no such pipeline"),
        ({"PIPELINES__TICKETS": "x"}, "pipelines.tickets: is no setting"),
        ({"PIPELINES__TICKETS__BATCH__ROWS": "0"}, "pipelines.tickets.batch.rows: '0': "),
        ({"PIPELINES__TICKETS__BATCH__ROW": "1"}, "pipelines.tickets.batch.row: there is no such"),
        ({"PIPELINES__TICKETS__METRICS__ADDRESS": ""}, "pipelines.0.metrics: there is no such"),
        ({"TABLE__NAME": "x"}, "table.name: no two pipelines"),
        ({"EMBEDDINGS__TOPIC": "x"}, "embeddings.topic: no two pipelines"),
        (
            {"PIPELINES__TICKETS__KAFKA__APPLICATION_ID": "headrace-old-orders"},
            "pipelines.old-orders.kafka.application_id: headrace-old-orders: is pipelines.tickets",
        ),
        (
            {"PIPELINES__OLD_ORDERS__TABLE__NAME": "tickets"},
            "pipelines.old-orders.table.name: /",
        ),
        (
            {
                "PIPELINES__OLD_ORDERS__TABLE__NAME": "tickets",
                "PIPELINES__OLD_ORDERS__TABLE__URI": "./data/../data/lancedb/",
            },
            "pipelines.old-orders.table.name: /",
        ),
        (
            {"PIPELINES__OLD_ORDERS__TABLE__NAME": "tick{/metadata/x}"},
            "pipelines.old-orders.table.name: 'tick{/metadata/x}': could make a table of pipel",
        ),
        (
            {
                "PIPELINES__OLD_ORDERS__TABLE__NAME": "a_{/metadata/x}",
                "PIPELINES__TICKETS__TABLE__NAME": "{/metadata/y}",
            },
            "pipelines.tickets.table.name: '{/metadata/y}': could make a table of",
        ),
        ({"PIPELINES__OLD_ORDERS__TABLE__NAME": "users"}, "pipelines.old-orders.table.name: /"),
        (
            {"PIPELINES__OLD_ORDERS__EMBEDDINGS__TOPIC": "user_vectors"},
            "pipelines.old-orders.embeddings.topic: user_vectors: is what flows.recommend writes",
        ),
        (
            {"SOURCE__MARKUP": "html", "PIPELINES__TICKETS__SOURCE__TEXT": "/t"},
            "pipelines.old-orders.source.markup: is set without source.text",
        ),
        (
            {"PIPELINES__OLD_ORDERS__EMBEDDINGS__TOPIC": "tickets.embeddings"},
            "pipelines.old-orders.embeddings.topic: tickets.embeddings: is pipelines.tickets",
        ),
        (
            {"PIPELINES__TICKETS__EMBEDDINGS__TOPIC": "tickets"},
            "pipelines.tickets.embeddings.topic: tickets is one of source.topics",
        ),
        (
            {"PIPELINES__TICKETS__DEAD_LETTERS__TOPIC": "orders"},
            "pipelines.tickets.dead_letters.topic: orders: is one of pipelines.old-orders.source",
        ),
        (
            {"PIPELINES__TICKETS__DEAD_LETTERS__TOPIC": "old-orders.embeddings"},
            "pipelines.tickets.dead_letters.topic: old-orders.embeddings: is pipelines.old-orders",
        ),
    ],
)
def test_what_is_wrong_is_named(variables: dict[str, str], told: str) -> None:
    """A fault is told by the pipeline and the setting."""
    assert refused(**variables).startswith(told)


def test_templates_apart() -> None:
    """Tables of two templates that begin unlike, or are in two folders, never meet."""
    names = {
        "PIPELINES__OLD_ORDERS__TABLE__NAME": "a_{/metadata/x}",
        "PIPELINES__TICKETS__TABLE__NAME": "b_{/metadata/x}",
    }
    assert all(own.table.routed for own in read(**names).each())
    names["PIPELINES__TICKETS__TABLE__NAME"] = "a_{/metadata/x}"
    elsewhere = {"PIPELINES__TICKETS__TABLE__URI": "other"}
    assert all(own.table.routed for own in read(**names, **elsewhere).each())


@pytest.mark.parametrize("name", ["", "A", "a b", "a.b", "a__b", "-a", "a-", "x" * 41, 5, None])
def test_a_name_is_short_and_plain(name: object) -> None:
    """A name can stand in a topic's name, a label, a step's id and a variable."""
    assert refused([{"name": name}]).startswith("pipelines.0.name: ")


def test_names_differ() -> None:
    """No two have a name, nor one that is the same in a variable."""
    assert refused([{"name": "a-b"}, {"name": "a_b"}]).startswith("pipelines.a_b: there is a-b")
    assert refused([{"name": "recommend"}]).startswith("pipelines.recommend.kafka.application_id")


def test_a_secret_is_not_shown() -> None:
    """The broker's options are no pipeline's own, and are in no error about that."""
    told = refused([{"name": "a", "kafka": {"client": {"sasl.password": "hunter2"}}}])
    assert (
        told
        == "pipelines.0.kafka: only application_id can be a pipeline's own: they share one broker"
    )


def test_options_of_the_broker_are_shared() -> None:
    """What is read from a file for all is so for each, once."""
    own = read(KAFKA__CLIENT='{"sasl.password": "x", "ssl.ca.location": "/f"}').each()[0]
    assert own.kafka.client == {"sasl.password": "x", "ssl.ca.location": "/f"}


def test_dead_letters_may_be_in_one_topic() -> None:
    """A topic of dead letters that is set for all is that of all."""
    found = read(DEAD_LETTERS__TOPIC="dead").each()
    assert [one.dead_letters.topic for one in found] == ["dead", "dead"]
