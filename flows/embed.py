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
        pipelines = embedding_parts()
    dataflow = Dataflow("embed")
    for parts in pipelines:
        prefix = parts.prefix
        records = op.input(f"{prefix}read", dataflow, parts.source)
        documents = op.map(f"{prefix}decode", records, parts.decode)
        outcomes = op.flat_map_batch(f"{prefix}embed", documents, parts.embed)
        windows = window(f"{prefix}window", outcomes, parts.windows)
        op.output(f"{prefix}topic", windows, parts.topic)
        op.output(f"{prefix}table", windows, parts.table)
    return dataflow
