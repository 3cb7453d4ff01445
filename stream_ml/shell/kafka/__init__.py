"""The loop on Apache Kafka: clients, topics, and the workers that keep it exactly once."""
