"""Documents from Kafka to the embeddings topic and the table, each exactly once.

Run it with `python -m bytewax.run flows.embed`.
"""

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from flows.frame import one_line_errors
from flows.parts import embedding_parts
from operators.window import window


def flow() -> Dataflow:
    """The dataflow; ends the program with one line when a setting or the world is wrong."""
    with one_line_errors():
        parts = embedding_parts()
    dataflow = Dataflow("embed")
    records = op.input("read", dataflow, parts.source)
    documents = op.map("decode", records, parts.decode)
    outcomes = op.flat_map_batch("embed", documents, parts.embed)
    windows = window("window", outcomes, parts.windows)
    op.output("topic", windows, parts.topic)
    op.output("table", windows, parts.table)
    return dataflow
