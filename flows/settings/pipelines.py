"""Several pipelines of one settings file: what each has of its own, and what keeps them apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from operators.routing import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flows.settings.whole import Settings

__all__ = ["OWN", "Pipeline", "check_apart", "sections_of", "variable_of"]

PipelineName = Annotated[str, Field(max_length=40, pattern=r"^[a-z0-9]+([_-][a-z0-9]+)*$")]
Own = Annotated[dict[str, Any], Field(default_factory=dict)]

OWN: Final = ("kafka", "source", "embeddings", "dead_letters", "table", "model", "batch")
"""The sections of which a pipeline may have settings of its own."""

RECOMMEND: Final = "recommend"
"""What `flows.recommend` adds to the application's id."""


class Pipeline(BaseModel):
    """A pipeline: its name, and those settings in which it differs from the file's others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PipelineName
    kafka: Own
    source: Own
    embeddings: Own
    dead_letters: Own
    table: Own
    model: Own
    batch: Own

    @field_validator("kafka")
    @classmethod
    def _id_alone(cls, own: dict[str, Any]) -> dict[str, Any]:
        if own.keys() - {"application_id"}:
            raise ValueError("only application_id can be a pipeline's own: they share one broker")
        return own


def variable_of(name: str) -> str:
    """A pipeline's name as a part of the name of an environment variable."""
    return name.upper().replace("-", "_")


def sections_of(settings: Settings, pipeline: Pipeline) -> dict[str, Any]:
    """All sections for one pipeline: its own settings, key by key, before those of all.

    A key's value is replaced as a whole, one that is a table or a list, too.
    """
    sections: dict[str, Any] = {
        name: getattr(settings, name)
        for name in type(settings).model_fields
        if name not in {"pipeline", "pipelines"}
    }
    named = _named(settings, pipeline.name)
    for name in OWN:
        own = {**named.get(name, {}), **getattr(pipeline, name)}
        sections[name] = {**sections[name].model_dump(exclude_unset=True), **own}
    return sections


def _named(settings: Settings, name: str) -> dict[str, dict[str, str]]:
    """What is named after a pipeline, unless it says otherwise."""
    named = {
        "kafka": {"application_id": f"{settings.kafka.application_id}-{name}"},
        "embeddings": {"topic": f"{name}.embeddings"},
        "table": {"name": name},
    }
    if "topic" not in settings.dead_letters.model_fields_set:
        named["dead_letters"] = {"topic": f"{name}.dead-letters"}
    return named


def check_apart(
    settings: Settings,
    own_of: Callable[[Pipeline], Settings],
    told: Callable[[ValidationError], str],
) -> None:
    """See that each pipeline is right by itself, and that none gets into another's way.

    Args:
        settings: All of them.
        own_of: The settings of one pipeline.
        told: A fault in one line that begins with the setting's name.

    Raises:
        ValueError: They are not; the text names the pipeline's setting.
    """
    _check_names(settings)
    owns: list[Settings] = []
    for pipeline in settings.pipelines:
        try:
            owns.append(own_of(pipeline))
        except ValidationError as error:
            raise ValueError(f"pipelines.{pipeline.name}.{told(error)}") from error
    ids = {f"{settings.kafka.application_id}-{RECOMMEND}": "what flows.recommend has"}
    _differ("kafka.application_id", owns, lambda own: own.kafka.application_id, ids)
    recommend = settings.recommend
    topics = [recommend.embeddings_topic, recommend.users_topic]
    tables = [recommend.products_table, recommend.users_table]
    places = [_place(settings.table.uri, table) for table in tables]
    _differ("embeddings.topic", owns, lambda own: own.embeddings.topic, _taken(topics))
    _differ("table.name", owns, lambda own: _place(own.table.uri, own.table.name), _taken(places))
    _check_routes(owns)
    _check_topics(owns)


def _check_routes(owns: Sequence[Settings]) -> None:
    """See that no pipeline can make a table that is another one's."""
    for own in owns:
        if not own.table.routed:
            continue
        route, folder = Route(own.table.name), _place(own.table.uri, "")
        for other in owns:
            name = other.table.name
            if other is own or _place(other.table.uri, "") != folder:
                continue
            if route.meets(Route(name)) if other.table.routed else route.makes(name):
                raise ValueError(
                    f"pipelines.{own.name}.table.name: {own.table.name!r}: could make a table of "
                    f"pipelines.{other.name}, which has {name!r}; let their names begin unlike"
                )


def _place(uri: str, table: str) -> str:
    """Where a table is, however its folder is written."""
    folder = uri.rstrip("/") if "://" in uri else str(Path(uri).absolute().resolve())
    return f"{folder}/{table}"


def _taken(values: Sequence[str]) -> dict[str, str]:
    return dict.fromkeys(values, "what flows.recommend writes")


def _check_names(settings: Settings) -> None:
    names = [pipeline.name for pipeline in settings.pipelines]
    variables = [variable_of(name) for name in names]
    for index, name in enumerate(names):
        if variables[index] in variables[:index]:
            other = names[variables.index(variables[index])]
            raise ValueError(f"pipelines.{name}: there is {other} already; take another name")
    for name in settings.pipeline:
        if name not in names:
            there = f"there are {', '.join(names)}" if names else "there is no [[pipelines]]"
            raise ValueError(f"pipeline: {name!r}: there is no such pipeline; {there}")
    if names:
        _check_shared(settings)


def _check_shared(settings: Settings) -> None:
    """See that nothing is set for all pipelines of which each must have its own."""
    for section, key in (("embeddings", "topic"), ("table", "name")):
        if key in getattr(settings, section).model_fields_set:
            raise ValueError(
                f"{section}.{key}: no two pipelines may have the same; set it in each of "
                "[[pipelines]], or leave it out to have it named after the pipeline"
            )


def _differ(
    setting: str,
    owns: Sequence[Settings],
    value_of: Callable[[Settings], str],
    taken: Mapping[str, str] | None = None,
) -> None:
    known = dict(taken or {})
    for own in owns:
        value = value_of(own)
        if value in known:
            raise ValueError(f"pipelines.{own.name}.{setting}: {value}: is {known[value]}, too")
        known[value] = f"pipelines.{own.name}.{setting}"


def _check_topics(owns: Sequence[Settings]) -> None:
    """See that no pipeline reads what one of them writes, nor mixes the two outputs.

    One that reads another's output would be safe, but two could feed each other for ever.
    """
    read = {topic: own.name for own in owns for topic in own.source.topics}
    written = {own.embeddings.topic: own.name for own in owns}
    for own in owns:
        for setting, topic in _outputs(own):
            if topic in read:
                raise ValueError(
                    f"pipelines.{own.name}.{setting}: {topic}: is one of "
                    f"pipelines.{read[topic]}.source.topics, which would be a loop"
                )
        if own.dead_letters.topic in written:
            raise ValueError(
                f"pipelines.{own.name}.dead_letters.topic: {own.dead_letters.topic}: is "
                f"pipelines.{written[own.dead_letters.topic]}.embeddings.topic, too"
            )


def _outputs(own: Settings) -> Iterator[tuple[str, str]]:
    yield "embeddings.topic", own.embeddings.topic
    yield "dead_letters.topic", own.dead_letters.topic
