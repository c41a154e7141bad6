"""Where records without a key go, and what that costs: ``python -m benchmarks.partitioning``.

KIP-794's own experiment and the claim of KIP-480, on three real brokers: fastprod's partitioners, librdkafka's, Java's.
"""
