"""A bench that sends through fastprod to a replicated Kafka while it breaks what lies between, and checks the log."""
