"""The command line: `headrace`.

```text
main          the commands with their options; imports a command's module only when it runs
check, topics, model, load, search, status, dead_letters, serve
              what the commands do, as functions that return data, and how it is shown
broker        what several of them need of Kafka
output        how all of them print
```
"""
