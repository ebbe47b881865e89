"""Sections: what is read, and where things are in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from flows.settings.values import (
    Section,
    Text,
    TopicName,
    check_column,
    from_json,
    from_json_list,
    from_list,
)
from operators.columns import COLUMN_TYPES

__all__ = ["SourceSettings"]


class FieldSettings(Section):
    """A metadata field of a record of the user's own form."""

    at: str
    type: str | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, kind: str | None) -> str | None:
        if kind is not None and kind not in COLUMN_TYPES:
            raise ValueError(f"{kind!r}: the types are {', '.join(COLUMN_TYPES)}")
        return kind


def _from_pointers(value: object) -> object:
    """Fields of which some are mere pointers."""
    value = from_json(value)
    if not isinstance(value, dict):
        return value
    return {name: {"at": at} if isinstance(at, str) else at for name, at in value.items()}


class SourceSettings(Section):
    """What is read."""

    encoding: Literal["json", "registry"] = Field(
        "json",
        description="What values are: JSON (or Protobuf, where a record's header says so), or "
        "written by a schema of the registry.",
    )

    topics: Annotated[tuple[TopicName, ...], BeforeValidator(from_list)] = Field(
        ("documents",), min_length=1, description="The topics that hold documents."
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a partition without committed offset starts."
    )
    missing: Literal["error", "skip"] = Field(
        "error",
        description="What to do when retention has deleted records that a sink still lacks.",
    )
    max_in_flight: int = Field(
        8192, ge=1, description="Records read and not yet written, per worker."
    )
    max_in_flight_bytes: int = Field(
        64 << 20, ge=1, description="Bytes of those records, per worker."
    )
    max_record_bytes: int = Field(
        900_000,
        ge=1024,
        le=100_000_000,
        description="Bytes of a record, headers included; a larger one is a dead letter.",
    )
    format: Literal["json", "debezium"] = Field(
        "json",
        description="What a value holds: the fields themselves, or a change event of Debezium's, "
        "whose row has them.",
    )
    id: Annotated[str, Field(pattern=r"^(key)?(/.*)?$", min_length=1)] = Field(
        "key",
        description="Where the document's id is: `key`, a pointer into a JSON key such as "
        "`key/id`, or one into the value such as `/id`.",
    )
    text: Annotated[str | tuple[str, ...] | None, BeforeValidator(from_json_list)] = Field(
        None,
        description="Where the text is, in records of your own form: a template such as "
        "`{/title}. {/body?}`, a list of pointers, or a JMESPath expression behind `jmespath:`. "
        "Unless set, records have Headrace's form.",
    )
    metadata: Annotated[dict[str, FieldSettings], BeforeValidator(_from_pointers)] = Field(
        {},
        description='Metadata fields, each a pointer, or `{at = "/price", type = "float64"}` for '
        "a typed column.",
    )
    timestamp: Text | None = Field(
        None, description="Pointer to the record's time; unless set Kafka's timestamp is taken."
    )
    delete_when: Text | None = Field(
        None, description="JMESPath expression that holds of a record which deletes its document."
    )
    filter: Text | None = Field(
        None,
        description="JMESPath expression that holds of the records to take; others are passed "
        "over.",
    )
    markup: Literal["none", "html", "markdown"] = Field(
        "none", description="What the texts are written in; they are reduced to plain text."
    )

    @property
    def mapped(self) -> bool:
        """Whether records have the user's own form."""
        return self.text is not None

    @property
    def by_key(self) -> bool:
        """Whether all records of a document have one key, and so one partition."""
        return not self.id.startswith("/")

    def check_text(self) -> None:
        """See that nothing of a mapping is set without a text.

        Raises:
            ValueError: Something is.
        """
        mapping = ("format", "id", "metadata", "timestamp", "delete_when", "filter", "markup")
        for name in mapping:
            if not self.mapped and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"source.{name}: is set without source.text, which it goes with")

    @model_validator(mode="after")
    def _row_key(self) -> SourceSettings:
        if self.format == "debezium" and self.id != "key":
            raise ValueError(
                f'source.id: {self.id!r}: with source.format = "debezium" it is the row\'s primary '
                "key; leave it out (message.key.columns of the connector takes other columns)"
            )
        return self

    @field_validator("metadata")
    @classmethod
    def _free(cls, fields: dict[str, FieldSettings]) -> dict[str, FieldSettings]:
        for name, one in fields.items():
            if one.type is not None:
                check_column(name)
        return fields

    @field_validator("topics")
    @classmethod
    def _once(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(topics)) < len(topics):
            raise ValueError("a topic is named twice")
        return topics
