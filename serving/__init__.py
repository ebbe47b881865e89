"""The HTTP services: documents in, searches and recommendations out. Knows nothing of Bytewax.

```text
server        binds the port, TLS, worker processes, shutdown
app           one worker's application: its parts, its routers, how errors are answered
guard         before any work: token, rate, content type, size of the body
auth, keys    tokens to callers; the public keys by which they are checked
problems      errors as problem documents (RFC 9457)
openapi       what the OpenAPI document has beyond what the routes say
ingest, bulk  the routes that write
  records     what they are asked to write, as Kafka records
  publisher   records to the broker: bounded, and each answered once acknowledged
search        the route that searches
  following   the one table, and another one once readers are to have that
  routed      the tables that records name, each by its name
recommend     the route that recommends products to a user
  queries     what a search asks of a table
  vectors     words to vectors, several at a time, the last ones remembered
  waiting     until the table holds a record
live          how the stream stands, once or as server-sent events
page          the page at `/`, in page.html
health        live, ready, metrics
observe       counts and times each request
traced        a span for each request, where there is a collector
models, times the bodies of requests and answers; timestamps in seconds or milliseconds
```

A further service is a function that returns an `APIRouter`, included in `app`.
"""
