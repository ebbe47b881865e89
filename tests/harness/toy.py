"""A flow that prints the settings it was given and then waits for ever."""

import os

import bytewax.operators as op
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from typing_extensions import override


class _Ticks(StatelessSourcePartition[str]):
    def __init__(self) -> None:
        self._told = False

    @override
    def next_batch(self) -> list[str]:
        if self._told:
            return []
        self._told = True
        return [f"{name}={value}" for name, value in os.environ.items() if "HEADRACE" in name]


class _TickSource(DynamicSource[str]):
    @override
    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Ticks:
        return _Ticks()


flow = Dataflow("toy")
op.output("out", op.input("in", flow, _TickSource()), StdOutSink())
