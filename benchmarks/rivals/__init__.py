r"""What people use instead, each a program of its own that does what the flow does.

```text
job      what a program is told: broker, topics, table, model
model    the model, under sentence-transformers
loop     a loop written by hand: Kafka, sentence-transformers, Kafka and LanceDB
quix     Quix Streams, exactly once, to a topic
stock    Bytewax with its own Kafka connectors, to a topic
coco     CocoIndex, to a topic and a table
```

They run in environments of their own, `build/rivals/*`, since their packages need older versions of
some that Headrace needs. `requirements/NAME.txt` has the versions of one, and is made by

    build/uv/bin/uv pip compile --universal --python-version 3.11 --no-annotate --no-header \
        benchmarks/rivals/requirements/NAME.in -o benchmarks/rivals/requirements/NAME.txt

Nothing here imports Headrace, or what is not in those environments.
"""
