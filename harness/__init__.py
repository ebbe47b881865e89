"""Starts what Headrace runs against and runs as: a real Apache Kafka, and the real flows.

Demo, tests, benchmarks and soak all start their processes here, so that there is one place that
knows how to start, kill and leave nothing behind.
"""
