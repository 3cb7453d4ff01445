"""Apache Kafka on this machine."""
