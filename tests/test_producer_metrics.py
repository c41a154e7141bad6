"""The figures of a producer."""

import pytest

pytestmark = pytest.mark.mock

JAVA_METRICS = {
    "batch-size-avg", "batch-size-max", "buffer-available-bytes", "buffer-exhausted-total", "buffer-total-bytes",
    "bufferpool-wait-ratio", "bufferpool-wait-time-ns-total", "flush-time-ns-total", "record-error-rate",
    "record-error-total", "record-queue-time-avg", "record-queue-time-max", "record-send-rate", "record-send-total",
    "record-size-avg", "records-per-request-avg", "request-latency-avg", "request-latency-max", "request-total",
    "waiting-threads",
}  # fmt: skip


def test_metrics_have_javas_names_and_plausible_values(make, mock_cluster, topic):
    producer = make(linger_ms=5, batch_size=2000)
    before = producer.metrics()
    assert before.keys() >= JAVA_METRICS and before["record-send-total"] == before["batch-size-avg"] == 0
    for _ in range(500):
        producer.send(topic, b"v" * 100)
    producer.flush(10)
    mock_cluster.push_request_errors("Produce", [29])
    assert producer.send(topic, b"v").exception(10) is not None
    metrics = producer.metrics()
    assert all(isinstance(value, (int, float)) and value >= 0 for value in metrics.values())
    assert (metrics["record-send-total"], metrics["record-error-total"]) == (500, 1)
    assert 100 < metrics["record-size-avg"] < 250
    assert 100 < metrics["batch-size-avg"] <= metrics["batch-size-max"] <= 2000
    assert 0 < metrics["request-latency-avg"] <= metrics["request-latency-max"] < 10_000
    assert 0 < metrics["record-queue-time-avg"] <= metrics["record-queue-time-max"] < 10_000
    assert 1 <= metrics["request-total"] <= 501 and metrics["records-per-request-avg"] >= 1
    assert metrics["flush-time-ns-total"] > 0 and metrics["record-send-rate"] > 0
    assert metrics["buffer-total-bytes"] == 32 << 20
    assert metrics["buffer-exhausted-total"] == metrics["waiting-threads"] == 0
