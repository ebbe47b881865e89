"""Where outcomes go: the embeddings topic and the table. Both know nothing of the model."""

from sinks.errors import SinkError

__all__ = ["SinkError"]
