"""The core: what the producer is made of, under Kafka's names."""
