"""How Headrace talks to Kafka."""
