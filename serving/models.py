"""The bodies of requests and answers."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from operators.judging import MAX_ID_BYTES
from serving.times import Timestamp
from sinks.filters import MAX_CHARACTERS

__all__ = [
    "MAX_K",
    "MAX_OFFSET",
    "Accepted",
    "BulkResult",
    "DocumentBody",
    "Event",
    "FreshDocument",
    "Freshness",
    "Identity",
    "Inventory",
    "Item",
    "ItemChunk",
    "Items",
    "LaneLag",
    "LiveState",
    "Position",
    "Recommendation",
    "Recommendations",
    "SearchBody",
    "View",
]

MAX_K = 1000
MAX_OFFSET = 10_000
MAX_QUERY_CHARACTERS = 8192
MAX_QUANTITY = (1 << 53) - 1
"""The largest whole number that every JSON reader keeps."""


def _fits(identity: str) -> str:
    if len(identity.encode()) > MAX_ID_BYTES:
        raise ValueError(f"must have at most {MAX_ID_BYTES} bytes of UTF-8")
    return identity


def _told(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Identity = Annotated[str, Field(min_length=1, max_length=MAX_ID_BYTES), AfterValidator(_fits)]
Words = Annotated[str, Field(min_length=1), AfterValidator(_told)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(_Body):
    """Something that a user did or said, to be found again as a document."""

    user_id: Identity = Field(description="Who.", examples=["u123"])
    text: Words = Field(description="What.", examples=["asked for a chair that fits a low desk"])
    timestamp: Timestamp


class View(_Body):
    """A user has looked at a product."""

    user_id: Identity = Field(description="Who.", examples=["u123"])
    product_id: Identity = Field(description="What.", examples=["42"])
    title: Words = Field(description="The product's title.", examples=["Ergonomic Office Chair"])
    timestamp: Timestamp
    category: str | None = Field(None, description="The product's kind.", examples=["chairs"])
    in_stock: bool | None = Field(
        None, description="Whether it can be had.", examples=[True], strict=True
    )


class Inventory(_Body):
    """How many of a product there are."""

    in_stock: bool = Field(description="Whether it can be had.", examples=[True], strict=True)
    quantity: int = Field(description="How many.", examples=[7], strict=True, ge=0, le=MAX_QUANTITY)


class DocumentBody(_Body):
    """A document as it is now; without `text` only its metadata changes."""

    text: Words | None = Field(None, description="The text.", examples=["a red chair of beech"])
    metadata: dict[str, Any] | None = Field(
        None, description="What else is known of it.", examples=[{"price": 120}]
    )
    timestamp: Timestamp | None = Field(
        None,
        description="When it came to be so, in seconds or milliseconds; unless given, now.",
        examples=[1700000000],
    )


class Accepted(BaseModel):
    """Where a record stands that the broker has acknowledged; also what `after` takes."""

    topic: str = Field(examples=["documents"])
    partition: int = Field(examples=[3])
    offset: int = Field(examples=[1042])


class BulkResult(BaseModel):
    """What became of one line of a bulk."""

    line: int = Field(description="The line's number, from 1.", examples=[1])
    id: str | None = Field(None, description="The document's id.", examples=["chair"])
    status: int = Field(description="202, or what a single request had got.", examples=[202])
    topic: str | None = Field(None, examples=["documents"])
    partition: int | None = Field(None, examples=[3])
    offset: int | None = Field(None, examples=[1042])
    code: str | None = Field(None, description="Of a line that was refused.")
    detail: str | None = Field(None, description="What is wrong with it.")


class Position(_Body):
    """A record that the table must hold before it is searched."""

    topic: str = Field(max_length=249, examples=["documents"])
    partition: int = Field(ge=0, le=(1 << 31) - 1, strict=True, examples=[3])
    offset: int = Field(ge=0, le=(1 << 63) - 1, strict=True, examples=[1042])


class SearchBody(_Body):
    """What is looked for."""

    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARACTERS)] = Field(
        description="Words.", examples=["something to sit on"]
    )
    k: int = Field(10, ge=1, le=MAX_K, description="How many documents.", strict=True)
    offset: int = Field(
        0, ge=0, le=MAX_OFFSET, description="How many to leave out before them.", strict=True
    )
    filter: str | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="A condition on the table's columns, in SQL.",
        examples=["price < 200"],
    )
    mode: Literal["vector", "text", "hybrid"] = Field(
        "vector", description="By meaning, by words, or by both."
    )
    table: str | None = Field(
        None,
        description="The table; to be given where each record names its own.",
        examples=["documents"],
    )
    after: Position | None = Field(
        None,
        description="What a write was answered: wait until it can be found.",
        examples=[{"topic": "documents", "partition": 3, "offset": 1042}],
    )


class ItemChunk(BaseModel):
    """The part of a document that was found."""

    number: int = Field(description="From 0 on.", examples=[0])
    start: int | None = Field(
        description="Its first character within the document's text; null in rows that an older "
        "release wrote.",
        examples=[0],
    )
    end: int | None = Field(description="The character after its last one.", examples=[20])
    text: str = Field(examples=["a red chair of beech"])


class Item(BaseModel):
    """A document that was found."""

    id: str = Field(examples=["chair"])
    score: float = Field(
        description="The higher the better: cosine, BM25, or the sum of reciprocal ranks.",
        examples=[0.61],
    )
    text: str = Field(description="All of it.", examples=["a red chair of beech"])
    metadata: dict[str, Any] = Field(examples=[{"price": 120}])
    chunk: ItemChunk = Field(description="Its best part.")


class Items(BaseModel):
    """What was found, best first."""

    items: list[Item]
    took_ms: float = Field(description="Milliseconds of work, waiting included.", examples=[7.4])


class Recommendation(BaseModel):
    """A product for a user."""

    product_id: str = Field(examples=["7"])
    score: float = Field(
        description="The higher the better: cosine to what the user looked at of late; for a "
        "user without views about how many views the product had of late.",
        examples=[0.58],
    )
    title: str = Field(examples=["Standing Desk"])
    because: str | None = Field(
        description="The product the user looked at that is nearest to it; null for what is "
        "popular.",
        examples=["42"],
    )


class Recommendations(BaseModel):
    """What is recommended, best first."""

    items: list[Recommendation]
    took_ms: float = Field(description="Milliseconds of work.", examples=[9.1])


class Freshness(BaseModel):
    """How old records were when a sink had them, of the last ten seconds."""

    p50: float = Field(description="Milliseconds.", examples=[28.0])
    p99: float = Field(description="Milliseconds.", examples=[74.5])


class LaneLag(BaseModel):
    """How far behind the flow is in a partition."""

    topic: str = Field(examples=["documents"])
    partition: int = Field(examples=[0])
    offsets: int = Field(description="Not yet read.", examples=[0])


class FreshDocument(BaseModel):
    """A document that has just become searchable."""

    id: str = Field(examples=["chair"])
    text: str = Field(description="Its beginning.", examples=["a red chair of beech"])
    embedded_at_ms: int = Field(description="Since 1970.", examples=[1700000000123])


class LiveState(BaseModel):
    """How the stream stands."""

    flow: str | None = Field(description="What is wrong with the flow, if it is.", examples=[None])
    kafka: str | None = Field(description="What is wrong with Kafka, if it is.", examples=[None])
    docs_per_s: float | None = Field(
        description="Records a second onto the topic, of the last ten seconds.", examples=[120.5]
    )
    freshness_ms: dict[str, Freshness] = Field(
        description="By sink.", examples=[{"topic": {"p50": 28.0, "p99": 74.5}}]
    )
    lag: list[LaneLag] = Field(
        description="By partition.",
        examples=[[{"topic": "documents", "partition": 0, "offsets": 0}]],
    )
    dead_letters: dict[str, int] = Field(
        description="By code, since the flow was started.", examples=[{"bad_json": 2}]
    )
    latest: list[FreshDocument] = Field(
        description="Newest first; none of tables that the records name.",
        examples=[
            [{"id": "chair", "text": "a red chair of beech", "embedded_at_ms": 1700000000123}]
        ],
    )
