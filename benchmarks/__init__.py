"""The flow beside the bare model, and beside what people use instead: `python -m benchmarks`.

```text
texts      the documents: docstrings of what is installed
remote     an object in a process of its own
control    the model alone, without Kafka or a table
weights    the flow's model as sentence-transformers takes it
rivals     what people use instead, each a program of its own
subjects   who is measured: the flow and the rivals, ready to be started
load       the load generator
watch      when outcomes are seen in the topic of vectors and in the table
usage      CPU time and memory of processes
meters     what the flow's own metrics say
rig        a broker, and subjects on topics and tables of their own
plan       the interleaved rounds, then the steady loads
figures    medians and ratios of what was measured
tables     what was found, as tables
report     the tables on the terminal, and JSON
plots      pictures
page       the benchmarks page
events     by itself: records of known texts
static     by itself: a static bundle beside its teacher
scaling    by itself: documents a second for many workers, by costs that `calibrate` measures
```
"""
