"""What the flow does for each core, beside the bare model in the same run: `python -m benchmarks`.

```text
texts      the documents: docstrings of what is installed
remote     an object in a process of its own
control    the model alone, without Kafka or a table
load       the load generator
watch      when outcomes are seen in the embeddings topic and in the table
rig        a broker, and flows on topics and tables of their own
plan       the interleaved rounds
figures    medians and ratios of what was measured
report     tables and JSON
static     by itself: a static bundle beside its teacher
```
"""
