"""Views and stocks of products, from Kafka to the topics and tables of products and of users.

Run it with `python -m bytewax.run flows.recommend`.
"""

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from flows.frame import one_line_errors
from flows.parts import recommending_parts
from operators.window import beside, window


def flow() -> Dataflow:
    """The dataflow; ends the program with one line when a setting or the world is wrong."""
    with one_line_errors():
        parts = recommending_parts()
    dataflow = Dataflow("recommend")
    records = op.input("read", dataflow, parts.source)
    views = op.map("decode", records, parts.decode)
    outcomes = op.flat_map_batch("embed", views, parts.embed)
    windows = window("window", outcomes, parts.windows)
    op.output("topic", windows, parts.topic)
    op.output("products", windows, parts.products)
    users = op.map_value("beside", windows, beside)
    op.output("users", users, parts.users)
    return dataflow
