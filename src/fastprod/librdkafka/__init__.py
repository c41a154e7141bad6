"""How librdkafka is found, loaded and called."""
