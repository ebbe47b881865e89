"""How the records of a flow are read, as the settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.errors import UsageError
from operators.documents import Decoder
from operators.mapping import ChangeDecoder, Field, MappedDecoder, Plan
from operators.routing import Route
from operators.values import JsonValues

if TYPE_CHECKING:
    from flows.settings import Settings
    from operators.decoding import RowDecoder
    from operators.values import Values

__all__ = ["check_plan", "decoder_of", "own_form", "plan_of"]


def plan_of(settings: Settings) -> Plan | None:
    """Where things are in a record; None where records have Headrace's own form."""
    source = settings.source
    if source.text is None:
        return None
    return Plan(
        source.text,
        source.id,
        {
            name: Field(one.at, one.type or settings.table.columns.get(name))
            for name, one in source.metadata.items()
        },
        source.timestamp,
        source.delete_when,
        source.filter,
        source.markup,
    )


def check_plan(settings: Settings) -> None:
    """See that a mapping can be compiled, before anything is reached.

    Raises:
        UsageError: A pointer or an expression of it is none.
    """
    plan = plan_of(settings)
    if plan is not None:
        MappedDecoder(plan=plan)


def decoder_of(settings: Settings, values: Values | None = None) -> RowDecoder:
    """What makes documents of records.

    Args:
        settings: The settings.
        values: Reads keys and values; None where they are JSON.

    Raises:
        UsageError: A pointer or an expression of the mapping is none.
    """
    plan, most = plan_of(settings), settings.source.max_record_bytes
    if plan is None:
        return Decoder(settings.columns, most, values=values, route=_route_of(settings))
    decoder = ChangeDecoder if settings.source.format == "debezium" else MappedDecoder
    return decoder(
        settings.columns,
        most,
        plan=plan,
        values=values or JsonValues(),
        route=_route_of(settings),
    )


def _route_of(settings: Settings) -> Route | None:
    """What names the table of a record, where there are several."""
    return Route(settings.table.name) if settings.table.routed else None


def own_form(settings: Settings, what: str) -> Decoder:
    """What judges records of Headrace's own form, for what writes such records.

    Args:
        settings: The settings.
        what: What writes them, for the error.

    Raises:
        UsageError: The flow reads others.
    """
    if settings.source.encoding == "registry":
        raise UsageError(
            f"source.encoding: registry: {what} writes JSON, and the flow is set to read records "
            "of a registry's schemas; unset source.encoding, or write the records yourself"
        )
    if settings.source.mapped:
        raise UsageError(
            f"source.text: {what} writes Headrace's own form of records, and the flow is set to "
            "read another; unset source.text, or write the records yourself"
        )
    most, route = settings.source.max_record_bytes, _route_of(settings)
    return Decoder(settings.columns, most, route=route)
