"""`make demo`: documents in, searchable out, the flow killed, nothing lost.

    python -m harness.demo [--data DIR]

`DEMO_DOCS` in the environment says how many documents. Everything is what a user would run: a
real Kafka, the `headrace` commands, the flow under `python -m bytewax.run`. What is shown of the
flow is not its own word: `watch` reads the topic and the table beside it.

Each of these knows only those below it:

```text
main        arguments and exit codes
run         the steps, and all that they start
ending      what is shown of the count, and how to go on
follow      shows how far a step is, and that all still runs
commands    what a user would type
writer      writes records at an even rate
watch       when records are on the topic and in the table
background  a job in a thread
interrupts  what Ctrl-C does
shown       the console
documents   texts, and changes of them
place       folder and ports
```
"""
