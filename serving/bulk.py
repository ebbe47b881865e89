"""A bulk of documents: JSON lines in, a result for each out, both as they come.

The answer begins while lines still arrive. What is read and what is written are kept apart, so a
client that sends all before it reads anything does not stand still: the results wait, and their
number is bounded by that of the lines.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson
from starlette.responses import Response

from operators.judging import milliseconds
from operators.lines import BYTE_ORDER_MARK, WrongLineError, parse_line
from serving.models import BulkResult
from serving.problems import ProblemError
from serving.records import STATUS, Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

    from operators.documents import Decoder
    from operators.records import Headers
    from serving.publisher import Placed, Publisher

__all__ = ["MEDIA", "Bulk", "BulkAnswer", "lines_of"]

MEDIA: Final = "application/x-ndjson"
WRITE_BYTES: Final = 16_384


def _time(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")  # noqa: TRY004 - told to the client as any wrong value
    return milliseconds(value)


@dataclass(frozen=True)
class Bulk:
    """What a bulk is done with.

    Attributes:
        topic: Where its documents go.
        publisher: Sends them.
        decoder: Judges them.
        line_bytes: Bytes of the longest line.
        lines: The most lines.
    """

    topic: str
    publisher: Publisher
    decoder: Decoder
    line_bytes: int
    lines: int


async def lines_of(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes | None]:
    """The lines of a body that comes in chunks; None for one of more bytes than the limit."""
    held = bytearray()
    skipping = False
    async for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            held += piece
            yield None if skipping or len(held) > limit else bytes(held)
            held.clear()
            skipping = False
        held += rest
        if len(held) > limit:
            skipping = True
            held.clear()
    if held or skipping:
        yield None if skipping else bytes(held)


class BulkAnswer(Response):
    """Reads a request's lines and writes their results, at the same time.

    Args:
        bulk: What it is done with.
        trace: The header that each record gets.
    """

    media_type = MEDIA

    def __init__(self, bulk: Bulk, trace: Headers) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._bulk = bulk
        self._trace = trace
        self._results: deque[_Result | None] = deque()
        self._news = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer, as ASGI has it."""
        await send(
            {"type": "http.response.start", "status": 200, "headers": self.raw_headers},
        )
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(receive))
            await self._write(send)
            reading.cancel()

    async def _read(self, receive: Receive) -> None:
        """Send each line's document; stop at the most lines, or when the client is gone."""
        number = 0
        try:
            async for line in lines_of(_body(receive), self._bulk.line_bytes):
                number += 1
                if number > self._bulk.lines:
                    told = f"more than {self._bulk.lines} lines; send the rest in another request"
                    self._put(_Result(number, None, ProblemError(413, "too_many_lines", told)))
                    break
                text = line.removeprefix(BYTE_ORDER_MARK) if line and number == 1 else line
                if text is None or text.strip():
                    self._put(await self._sent(number, text))
        except _ClientGoneError:
            pass
        finally:
            self._put(None)

    async def _sent(self, number: int, line: bytes | None) -> _Result:
        if line is None:
            told = f"longer than {self._bulk.line_bytes} bytes"
            return _Result(number, None, ProblemError(413, "too_large", told))
        try:
            found = parse_line(line, self._bulk.decoder, _time)
        except WrongLineError as error:
            problem = ProblemError(STATUS.get(error.code, 422), error.code, str(error))
            return _Result(number, error.id, problem)
        record = Record(self._bulk.topic, found.key, found.value, self._trace)
        try:
            # Lines are no reason to refuse other requests: they wait for room among them.
            await self._bulk.publisher.room()
            return _Result(number, found.id, self._bulk.publisher.begin(record))
        except ProblemError as error:
            return _Result(number, found.id, error)

    def _put(self, result: _Result | None) -> None:
        self._results.append(result)
        self._news.set()

    async def _write(self, send: Send) -> None:
        """Write results in the order of their lines, many at once where they are known."""
        while True:
            text = bytearray()
            ended = False
            while self._results and len(text) < WRITE_BYTES and not ended:
                result = self._results[0]
                if result is not None and result.unknown and text:
                    break
                self._results.popleft()
                if result is None:
                    ended = True
                else:
                    text += await self._told(result)
            if text or ended:
                body = {"type": "http.response.body", "body": bytes(text), "more_body": not ended}
                await send(body)
            if ended:
                return
            if not self._results:
                self._news.clear()
                await self._news.wait()

    async def _told(self, result: _Result) -> bytes:
        outcome = result.outcome
        if not isinstance(outcome, ProblemError):
            try:
                placed = await self._bulk.publisher.outcome(outcome)
            except ProblemError as error:
                outcome = error
            else:
                told = BulkResult(
                    line=result.line,
                    id=result.id,
                    status=202,
                    topic=placed.topic,
                    partition=placed.partition,
                    offset=placed.offset,
                )
                return _line(told)
        return _line(
            BulkResult(
                line=result.line,
                id=result.id,
                status=outcome.status_code,
                code=outcome.problem.code,
                detail=outcome.problem.detail,
            )
        )


@dataclass(frozen=True, slots=True)
class _Result:
    """A line, and what becomes of it."""

    line: int
    id: str | None
    outcome: ProblemError | asyncio.Future[Placed]

    @property
    def unknown(self) -> bool:
        """Whether the broker has yet to answer."""
        return isinstance(self.outcome, asyncio.Future) and not self.outcome.done()


class _ClientGoneError(Exception):
    pass


def _line(result: BulkResult) -> bytes:
    return orjson.dumps(result.model_dump(exclude_none=True)) + b"\n"


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        yield message.get("body", b"")
        more = message.get("more_body", False)
