"""The routes that write: each is answered once the broker has the record."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request
from starlette.convertors import Convertor, register_url_convertor

from operators.clock import wall_ms
from operators.documents import Decoder
from operators.judging import MAX_ID_BYTES
from operators.records import Headers
from serving import records
from serving.bulk import MEDIA as NDJSON
from serving.bulk import Bulk, BulkAnswer
from serving.guard import guarded
from serving.models import Accepted, BulkResult, DocumentBody, Event, Identity, Inventory, View
from serving.openapi import bulk_extra, problems
from serving.publisher import Publisher
from serving.traced import traceparent_of

__all__ = ["Ingest", "ingest_router"]

WRITE = "write"


class _Whole(Convertor[str]):
    """A part of a path that may have slashes and line breaks in it, as an id may."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("whole", _Whole())

_REFUSED = (401, 403, 413, 415, 422, 429, 503)

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_ID_BYTES,
        description="The document's id; made from the content unless given.",
    ),
]
DocumentId = Annotated[Identity, Path(description="The document's id.", examples=["chair"])]
ProductId = Annotated[Identity, Path(description="The product's id.", examples=["42"])]


@dataclass(frozen=True)
class Ingest:
    """What the routes write with.

    Attributes:
        publisher: Sends records.
        decoder: Judges documents, as the flow does.
        documents: The topic of documents.
        views: The topic of views.
        inventory: The topic of stocks.
        line_bytes: Bytes of the longest line of a bulk.
        lines: The most lines of a bulk.
    """

    publisher: Publisher
    decoder: Decoder
    documents: str
    views: str
    inventory: str
    line_bytes: int
    lines: int

    async def write(self, record: records.Record) -> Accepted:
        """Write a record, and say where it is."""
        placed = await self.publisher.send(record)
        return Accepted(topic=placed.topic, partition=placed.partition, offset=placed.offset)


def ingest_router(ingest: Ingest) -> APIRouter:
    """The routes that write."""
    router = guarded(WRITE, tags=["ingest"], responses=problems(*_REFUSED))

    @router.post("/event", status_code=202, summary="Keep an event as a document")
    async def post_event(body: Event, request: Request, key: IdempotencyKey = None) -> Accepted:
        """An event becomes a document, to be found by its text; sent again, it is the same one."""
        identity = key or records.event_id(body)
        record = records.event(ingest.documents, body, identity, _trace(request))
        return await ingest.write(records.checked(record, ingest.decoder))

    @router.post("/view", status_code=202, summary="Tell that a user has looked at a product")
    async def post_view(body: View, request: Request) -> Accepted:
        """Brings the product up to date, and what is recommended to the user."""
        return await ingest.write(records.view(ingest.views, body, _trace(request)))

    @router.put("/v1/documents/{document_id:whole}", status_code=202, summary="Write a document")
    async def put_document(
        document_id: DocumentId, body: DocumentBody, request: Request
    ) -> Accepted:
        """Replaces the document of that id; without `text`, its metadata alone."""
        trace = _trace(request)
        return await ingest.write(
            records.document(ingest.documents, document_id, body, trace, ingest.decoder)
        )

    @router.delete(
        "/v1/documents/{document_id:whole}", status_code=202, summary="Delete a document"
    )
    async def delete_document(document_id: DocumentId, request: Request) -> Accepted:
        """Deletes the document of that id, whether there is one or not."""
        trace = _trace(request)
        return await ingest.write(
            records.document(ingest.documents, document_id, None, trace, ingest.decoder)
        )

    @router.put(
        "/v1/products/{product_id:whole}/inventory",
        status_code=202,
        summary="Tell how many of a product there are",
    )
    async def put_inventory(product_id: ProductId, body: Inventory, request: Request) -> Accepted:
        """Changes the product's stock, without embedding it again."""
        record = records.inventory(ingest.inventory, product_id, body, wall_ms(), _trace(request))
        return await ingest.write(record)

    _add_bulk(router, ingest)
    return router


def _add_bulk(router: APIRouter, ingest: Ingest) -> None:
    bulk = Bulk(ingest.documents, ingest.publisher, ingest.decoder, ingest.line_bytes, ingest.lines)
    lines = guarded(WRITE, media=NDJSON)

    @lines.post(
        "/v1/documents",
        summary="Write many documents",
        status_code=200,
        response_class=BulkAnswer,
        responses={200: {"content": {NDJSON: {"schema": BulkResult.model_json_schema()}}}},
        openapi_extra=bulk_extra(NDJSON),
    )
    async def post_documents(request: Request) -> BulkAnswer:
        """A line is `{"id", "text", "metadata", "timestamp", "deleted"}`, as for `headrace load`.

        Lines are read and results written at the same time. There is a result for each line, in
        their order, with a status of its own; a wrong line stops none of the others.
        """
        return BulkAnswer(bulk, _trace(request))

    router.include_router(lines)


def _trace(request: Request) -> Headers:
    return records.traced(traceparent_of(request))
