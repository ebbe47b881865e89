"""What the OpenAPI document has beyond what the routes say: problems, and bodies that stream."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from serving.problems import MEDIA, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

__all__ = ["bulk_extra", "describe", "problems"]

_REF: Final = {"$ref": "#/components/schemas/Problem"}

EXAMPLES: Final[Mapping[int, tuple[str, str]]] = {
    401: ("bad_token", "the token has expired"),
    403: ("no_scope", "the token has no scope write"),
    404: ("not_found", "Not Found"),
    413: ("too_large", "the body has more than 1000000 bytes"),
    415: ("bad_content_type", "content-type: text/plain: must be application/json"),
    422: ("invalid", "body.timestamp: Field required"),
    429: ("too_many_requests", "more than 100 per 1 second"),
    503: ("queue_full", "the queue is full; the broker is behind"),
    504: ("not_yet", "after: documents/3/1042: the table has not come so far"),
}
_MEANINGS: Final[Mapping[int, str]] = {
    401: "No token, or none that is good.",
    403: "The token lacks the scope.",
    404: "There is no such thing.",
    413: "The body is too large.",
    415: "The body is of another type.",
    422: "The request can't be right.",
    429: "Too many requests of this user.",
    503: "Something that is needed is away or full; try again.",
    504: "The table has not come so far in time.",
}
_RETRIED: Final = frozenset({429, 503})


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers of those statuses, as a route's `responses` has them."""
    return {status: _answer(status) for status in statuses}


def _answer(status: int) -> dict[str, Any]:
    code, detail = EXAMPLES[status]
    title = HTTPStatus(status).phrase
    example = Problem(title=title, status=status, detail=detail, code=code)
    content = {MEDIA: {"schema": _REF, "example": example.model_dump(exclude_none=True)}}
    answer: dict[str, Any] = {"description": _MEANINGS[status], "content": content}
    if status in _RETRIED:
        seconds = {"schema": {"type": "integer"}, "description": "Seconds to wait."}
        answer["headers"] = {"Retry-After": seconds}
    return answer


def bulk_extra(media: str) -> dict[str, Any]:
    """The body of a bulk, of which no model of a whole body can tell."""
    line = '{"id": "chair", "text": "a red chair of beech", "metadata": {"price": 120}}\n'
    content = {media: {"schema": {"type": "string"}, "example": line}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        template = "#/components/schemas/{model}"
        schema = Problem.model_json_schema(ref_template=template)
        held = made.setdefault("components", {}).setdefault("schemas", {})
        held.update(schema.pop("$defs", {}))
        held["Problem"] = schema
        for unused in ("HTTPValidationError", "ValidationError"):
            held.pop(unused, None)
        if app.state.guard.is_open:
            _open(made)
        app.openapi_schema = made
    return app.openapi_schema


def _open(made: dict[str, Any]) -> None:
    """Leave out tokens, where none are looked at."""
    made["components"].pop("securitySchemes", None)
    for path in made["paths"].values():
        for operation in path.values():
            operation.pop("security", None)
            for status in ("401", "403"):
                operation["responses"].pop(status, None)
