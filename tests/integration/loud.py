"""The real flow with everything in its log that can be had, to look for what must not be there."""

import logging

from bytewax.dataflow import Dataflow

from flows import embed
from telemetry import logs

_configure = logs.configure


def flow() -> Dataflow:
    """The dataflow, at the level of debugging."""

    def loudly(*_: object, **__: object) -> None:
        _configure(level=logging.DEBUG)
        logging.root.setLevel(logging.DEBUG)

    logs.configure = loudly
    return embed.flow()
