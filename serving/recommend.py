"""The route that recommends products to a user."""

import asyncio
import time
from collections.abc import Collection
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request

from operators.activity import views_of
from serving.guard import check_table, guarded
from serving.models import MAX_K, Identity, Recommendation, Recommendations
from serving.openapi import problems
from serving.search import READ, ModelCheck
from sinks.errors import SinkError
from sinks.filters import MAX_CHARACTERS
from sinks.products import Products, Recommended
from sinks.search import TableReader

__all__ = ["Recommending", "recommend_router"]

_REFUSED: Final = (401, 403, 422, 429, 503)

UserId = Annotated[Identity, Path(description="The user's id.", examples=["u123"])]
HowMany = Annotated[int, Query(ge=1, le=MAX_K, description="How many products.")]
Condition = Annotated[
    str | None,
    Query(
        max_length=MAX_CHARACTERS,
        description="A condition on the products' columns, in SQL.",
        examples=["category = 'chairs'"],
    ),
]


class Recommending:
    """Recommends from two tables for one worker's requests.

    Args:
        users: The table of users.
        products: The products.
        check: Refuses a table of users with another model's vectors.
    """

    def __init__(self, users: TableReader, products: Products, check: ModelCheck) -> None:
        self._users = users
        self._products = products
        self._check = check

    def products(self, user: str, k: int, where: str | None) -> list[Recommended]:
        """The products for a user, best first.

        Raises:
            HeadraceError: The condition is wrong, or a table can't be searched.
        """
        self._check_tables()
        state = self._users.store.states([user], self._users.latest()).get(user)
        if state is None:
            return self._products.popular(k, where, time.time() * 1000)
        viewed = list(dict.fromkeys(view.product for view in views_of(state.metadata)))
        return self._products.near(state.vector, viewed, k, where)

    def _check_tables(self) -> None:
        try:
            self._check()
        except SinkError as error:
            store = self._users.store
            if store.exists():
                raise
            raise SinkError(
                f"recommend.users_table: {store.name}: there is no such table in {store.uri}; the "
                "flow makes it: python -m bytewax.run flows.recommend"
            ) from error


def recommend_router(recommending: Recommending, tables: Collection[str]) -> APIRouter:
    """The route that recommends.

    Args:
        recommending: Recommends.
        tables: The names of the tables that it takes: for who may search them all.
    """
    router = guarded(READ, tags=["search"], responses=problems(*_REFUSED))

    @router.get("/v1/users/{user_id:whole}/recommendations", summary="Recommend products to a user")
    async def get_recommendations(
        request: Request,
        user_id: UserId,
        k: HowMany = 10,
        where: Annotated[Condition, Query(alias="filter")] = None,
    ) -> Recommendations:
        """Products near to what the user looked at of late, in stock, and not among it.

        A user without views gets what is most viewed of late.
        """
        began = time.perf_counter()
        for table in tables:
            check_table(request, table)
        found = await asyncio.to_thread(recommending.products, user_id, k, where)
        items = [
            Recommendation(product_id=p.id, score=p.score, title=p.title, because=p.because)
            for p in found
        ]
        return Recommendations(items=items, took_ms=round((time.perf_counter() - began) * 1000, 3))

    return router
