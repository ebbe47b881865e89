"""The public keys of an issuer: fetched, kept for a while, and fetched anew when one is missing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog
from jwt import PyJWKClient, PyJWKSet
from jwt.exceptions import PyJWTError

from headrace.errors import HeadraceError
from telemetry.limited import LimitedLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from jwt import PyJWK

__all__ = ["KeySet", "KeysUnavailableError", "fetching"]

limited = LimitedLog(structlog.get_logger(__name__))

FETCH_TIMEOUT_S: Final = 5.0
RETRY_S: Final = 10.0
"""For how long a key that is missing is not asked for again: strangers can name any."""


class KeysUnavailableError(HeadraceError):
    """The issuer's keys can't be had, and none are left from before."""


def fetching(url: str) -> Callable[[], Any]:
    """Fetches the keys from a URL, as the JSON that is there."""
    # Its own cache is off: how long keys are kept is told here, in one place.
    client = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_TIMEOUT_S)
    return client.fetch_data


@dataclass(frozen=True)
class _Held:
    keys: dict[str | None, PyJWK]
    fetched: float


class KeySet:
    """Keys by their id; for one event loop.

    Args:
        fetch: Gives the key set as JSON; may block.
        cache_s: For how long keys are kept, in seconds.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        fetch: Callable[[], Any],
        cache_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._cache_s = cache_s
        self._clock = clock
        self._held: _Held | None = None
        self._tried = -RETRY_S
        self._lock = asyncio.Lock()

    async def key(self, identity: str | None) -> PyJWK | None:
        """The key of that id; None where the issuer has none.

        A rotated key is fetched when the first token comes that it has signed. While the issuer
        is away, the keys from before serve on.

        Raises:
            KeysUnavailableError: There are none.
        """
        held = self._held
        # Who wants a key that is not there waits for a fetch that has begun; others go on.
        if held is None or identity not in held.keys or self._stale(identity):
            async with self._lock:
                if self._stale(identity):
                    await self._refresh()
        if self._held is None:
            raise KeysUnavailableError("auth.jwks_url: the keys can't be fetched; the log says why")
        return self._held.keys.get(identity)

    def _stale(self, identity: str | None) -> bool:
        now, held = self._clock(), self._held
        wanting = held is None or identity not in held.keys or now - held.fetched > self._cache_s
        return wanting and now - self._tried >= RETRY_S

    async def _refresh(self) -> None:
        self._tried = self._clock()
        try:
            found = PyJWKSet.from_dict(await asyncio.to_thread(self._fetch))
        except (PyJWTError, ValueError, TypeError, AttributeError, OSError) as error:
            told = str(error).split("\n", 1)[0]
            limited.warning("keys not fetched", stage="auth", error=told)
            return
        self._held = _Held({key.key_id: key for key in found.keys}, self._tried)
