"""Sections: the model, and the batches that it is given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from flows.settings.values import Section, Text, from_list

__all__ = ["BatchSettings", "ModelSettings"]


class ModelSettings(Section):
    """The model."""

    name: Text = Field(
        "sentence-transformers/all-MiniLM-L6-v2", description="Hub id, folder, or bundle."
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description="`auto`: the fastest that agrees with fp32 and does not depend on the batch.",
    )
    runtime: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto", description="What runs the model."
    )
    least_agreement: float = Field(
        0.99,
        ge=0,
        le=1,
        description="Share of 10 nearest neighbours that `auto` must have in common with fp32.",
    )
    max_chunks: int = Field(
        1, ge=1, le=1000, description="Chunks of `max_tokens` tokens a document; 1 truncates."
    )
    chunk_overlap: int = Field(
        32, ge=0, description="Tokens that neighbouring chunks share, where cut at tokens."
    )
    split: Literal["tokens", "sentences", "markdown"] = Field(
        "tokens",
        description="Where a document of several chunks is cut: after so many tokens, between "
        "sentences and paragraphs, or at the headings and blocks of Markdown.",
    )
    chunk_prefix: str = Field(
        "",
        description="Metadata field, such as `title`, that is put before each chunk for the model. "
        "Empty: none.",
    )
    reuse: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether chunks that did not change keep their vectors; `auto`: where "
        "`model.max_chunks` is more than 1, or records are changes of rows (`source.format`).",
    )
    max_tokens: int | None = Field(
        None, ge=8, description="Tokens of a chunk; the model's own (256) unless set."
    )
    cache: Path = Field(
        Path("~/.cache/headrace/models"), description="Folder of the bundles that were built."
    )
    jars: Annotated[tuple[Path, ...], BeforeValidator(from_list)] = Field(
        (Path("build/jars/model"), Path("~/.m2/repository")),
        description="Files and folders that are searched for a jar which carries the model.",
    )
    cache_entries: int = Field(
        10_000, ge=0, description="Texts whose vectors are remembered; 0 remembers none."
    )
    cache_bytes: int = Field(
        32 << 20, ge=0, description="Bytes of what is remembered; 0 remembers none."
    )

    @field_validator("cache")
    @classmethod
    def _expanded(cls, path: Path) -> Path:
        return path.expanduser()

    @field_validator("jars")
    @classmethod
    def _all_expanded(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path.expanduser() for path in paths)


class BatchSettings(Section):
    """Batches."""

    rows: int = Field(500, ge=1, description="Records that close a window for the sinks.")
    wait_ms: float = Field(20, ge=0, le=3_600_000, description="Milliseconds that close it.")
    freshness_ms: float = Field(
        100,
        ge=10,
        le=60_000,
        description="Milliseconds from a record's timestamp to the topic that are aimed at; the "
        "table has twice as long.",
    )
    tokens: int | None = Field(
        None,
        ge=16,
        description="Padded tokens in one inference; unless set 512, or 2048 with a static bundle.",
    )
