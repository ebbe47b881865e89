"""The steps between Kafka and the sinks: pure, and ignorant of both."""
