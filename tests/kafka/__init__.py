"""A real Apache Kafka for the tests: assembled from Maven artifacts, one KRaft node on loopback."""
