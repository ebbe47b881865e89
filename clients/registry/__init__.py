"""The one place that speaks to a schema registry, by Confluent's own client and deserialisers.

Of the extra `registry`: nothing else imports what that installs.
"""

from clients.registry.client import Registry
from clients.registry.wire import Unreadable, schema_id

__all__ = ["Registry", "Unreadable", "schema_id"]
