"""Sections: the topics and the table that are written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from flows.settings.values import Section, Text, TopicName, check_column, check_table, from_json
from operators.columns import COLUMN_TYPES
from operators.routing import is_template

__all__ = ["DeadLettersSettings", "EmbeddingsSettings", "TableSettings"]


class EmbeddingsSettings(Section):
    """The topic of embeddings."""

    topic: TopicName = Field("embeddings", description="Where embeddings and tombstones go.")
    compression: Literal["lz4", "zstd", "none"] = Field("lz4", description="Of the topic.")
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="How a vector's numbers are stored in the topic."
    )
    encoding: Literal["protobuf", "registry"] = Field(
        "protobuf",
        description="Whether a value is the message alone, or in the registry's wire format.",
    )
    register_schema: bool = Field(
        default=True,
        description="Whether the flow puts the schema into the registry; else it must be there.",
    )


class DeadLettersSettings(Section):
    """The topic of dead letters."""

    topic: TopicName = Field("documents.dead-letters", description="Where bad records go.")


class TableSettings(Section):
    """The LanceDB table."""

    uri: Text = Field("data/lancedb", description="Folder or object-store URI of the tables.")
    name: str = Field(
        "documents",
        description="The table's name; or a template such as `docs_{/tenant}`, which makes it from "
        "each record.",
    )
    max_tables: int = Field(
        100, ge=1, le=10_000, description="The most tables of a template; one more ends the flow."
    )
    columns: Annotated[dict[str, str], BeforeValidator(from_json)] = Field(
        {},
        description='Metadata fields kept as typed columns, e.g. `{price = "float64"}`; the types '
        "are " + ", ".join(sorted(COLUMN_TYPES)) + ".",
    )
    index_rows: int = Field(
        50_000, ge=1000, description="Rows from which on the table gets a vector index."
    )
    text_index: bool = Field(
        default=True, description="Whether the table gets a full-text index, for searches by words."
    )
    tombstone_retention_s: float = Field(
        86_400.0,
        ge=0,
        le=315_360_000,
        description="Seconds that a deleted document's row is kept.",
    )

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        check_table(name)
        return name

    @property
    def routed(self) -> bool:
        """Whether each record names its table."""
        return is_template(self.name)

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        for name, kind in columns.items():
            if kind not in COLUMN_TYPES:
                raise ValueError(f"{name} = {kind!r}: the types are {', '.join(COLUMN_TYPES)}")
            check_column(name)
        return columns
