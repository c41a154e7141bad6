"""Options: Java's names in, librdkafka's properties out."""
