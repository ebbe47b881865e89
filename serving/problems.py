"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import structlog
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from headrace.errors import HeadraceError
from sinks.errors import FilterError, SinkError
from sinks.search import NoTextIndexError
from telemetry.limited import LimitedLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from starlette.requests import Request

__all__ = [
    "MEDIA",
    "Fault",
    "Problem",
    "ProblemError",
    "answer_problems",
    "beginning",
    "no_table",
    "problem_of",
]

limited = LimitedLog(structlog.get_logger(__name__))

MEDIA: Final = "application/problem+json"

RETRY_S: Final = 2
"""After how many seconds something that is away may be asked for again."""

MOST_FAULTS: Final = 20
"""How many faults of a request an answer tells at most: a body can have one in every few bytes."""

TOLD_CHARACTERS: Final = 200
"""How much of what a request says is said back."""

_CODES: Final[Mapping[int, str]] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
}


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(description="Where, with dots between.", examples=["body.timestamp"])
    message: str = Field(description="What is wrong.", examples=["Field required"])


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field("about:blank", description="Always `about:blank`: see `code`.")
    title: str = Field(description="What the status means.", examples=["Service Unavailable"])
    status: int = Field(description="The status.", examples=[503])
    detail: str = Field(description="What is wrong, for people.", examples=["the queue is full"])
    code: str = Field(description="What is wrong, for programs.", examples=["queue_full"])
    errors: list[Fault] | None = Field(None, description="The first faults of a request.")


class ProblemError(HTTPException):
    """An error that ends a request.

    Args:
        status: The answer's status.
        code: What is wrong, for programs.
        detail: What is wrong, for people.
        headers: Of the answer.
        errors: The faults of a request.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        errors: list[Fault] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.problem = Problem(
            title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, errors=errors
        )


def beginning(text: str) -> str:
    """As much of what a request says as an answer says back."""
    return text[:TOLD_CHARACTERS]


def no_table(name: str) -> ProblemError:
    """That there is no table of a name."""
    return ProblemError(404, "no_table", f"table: {beginning(name)}: there is no such table")


def problem_of(error: HeadraceError) -> ProblemError:
    """What an error from below the services is to one who asks them."""
    if isinstance(error, FilterError):
        return ProblemError(422, "bad_filter", f"filter: {error}")
    code = "unavailable"
    if isinstance(error, NoTextIndexError):
        code = "no_text_index"
    elif isinstance(error, SinkError):
        code = "table_unavailable"
    return ProblemError(503, code, str(error), {"Retry-After": str(RETRY_S)})


def answer_problems(app: FastAPI) -> None:
    """Let an application answer each of its errors with a problem document."""
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HeadraceError, _answer_ours)
    app.add_exception_handler(Exception, _answer_unknown)


def _answered(error: ProblemError) -> JSONResponse:
    content = error.problem.model_dump(exclude_none=True)
    return JSONResponse(content, error.status_code, error.headers, MEDIA)


async def _answer_http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if not isinstance(error, ProblemError):
        code = _CODES.get(error.status_code, "failed")
        error = ProblemError(error.status_code, code, str(error.detail), error.headers)
    return _answered(error)


async def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [_fault(fault) for fault in error.errors()[:MOST_FAULTS]]
    first = faults[0]
    told = f"{first.where}: {first.message}"
    return _answered(ProblemError(422, "invalid", told, errors=faults))


def _fault(fault: Mapping[str, Any]) -> Fault:
    where = ".".join(str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ")
    return Fault(where=beginning(where), message=message)


async def _answer_ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HeadraceError)
    problem = problem_of(error)
    if problem.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        code = problem.problem.code
        limited.warning("request failed", per=code, stage="http", code=code, error=str(error))
    return _answered(problem)


async def _answer_unknown(_: Request, __: Exception) -> JSONResponse:
    # The server logs what it was; a stranger is told nothing of our inside.
    return _answered(ProblemError(500, "internal", "an error of ours; the log has it"))
