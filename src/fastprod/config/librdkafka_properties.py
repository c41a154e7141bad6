"""The properties that a producer's rd_kafka_conf_t gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .options import OPTIONS
from .parse import text_of


def _socket_timeout_ms(request_timeout_ms: int) -> int:
    """The value with which librdkafka repeats an unanswered request at most 1 s after request.timeout.ms.

    librdkafka scans for timeouts once a second, reconnects, and waits retry.backoff.ms. So the value is a little
    smaller than request.timeout.ms. Measured: the last of 216 requests was repeated after 0.9 s.
    """
    return max(10, request_timeout_ms - min(250, request_timeout_ms // 4))


def librdkafka_properties(
    values: Mapping[str, Any], given: Mapping[str, Any], passed: Mapping[str, str]
) -> dict[str, str]:
    """The properties that the user gave, and those whose librdkafka default differs from Java's or fastprod's."""
    properties = {}
    for option in OPTIONS.values():
        # TLS and SASL defaults are the same in both. librdkafka warns about those that are set without need.
        optional = option.name.startswith(("ssl.", "sasl.", "enable.ssl."))
        if option.maps_to and (option.name in given or not optional) and (text := text_of(values[option.name])):
            properties[option.maps_to] = text
    properties |= {
        # fastprod lingers, bounds memory and chooses partitions, so librdkafka must not. It lingers for up to 1 ms
        # only, so that batches of a partition share a request.
        "linger.ms": f"{min(values['linger.ms'] / 5, 1):g}",
        "queue.buffering.max.messages": "0",
        "queue.buffering.max.kbytes": "2147483647",
        "sticky.partitioning.linger.ms": "0",
        # Batches that wait for the same partition may share a request.
        "batch.size": str(min(max(values["batch.size"], 1_000_000), values["max.request.size"])),
        "batch.num.messages": "1000000",
        "socket.keepalive.enable": "true",
        "socket.timeout.ms": str(_socket_timeout_ms(values["request.timeout.ms"])),
        # librdkafka's recovery drops the brokers and their leader epochs. It then accepts metadata from a broker that
        # does not know yet that it lost the leadership. MetadataUpdater recovers without this fault.
        "metadata.recovery.strategy": "none",
    }
    _translate(properties, values, given)
    level = f"compression.{values['compression.type']}.level"
    if level in given:
        properties["compression.level"] = str(values[level])
        if passed.get("compression.level", properties["compression.level"]) != properties["compression.level"]:
            raise ConfigError(f"{level} and compression.level are given with different values: leave one out")
    if not values["enable.idempotence"] and values["max.in.flight.requests.per.connection"] == 1:
        properties["linger.ms"] = "0"  # one hand-over is one request here, so librdkafka need not wait for more
    if values["transactional.id"]:  # librdkafka requires both to be at most transaction.timeout.ms
        for name in ("message.timeout.ms", "socket.timeout.ms"):
            properties[name] = str(min(int(properties[name]), values["transaction.timeout.ms"]))
    return properties


def _translate(properties: dict[str, str], values: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Changes Java's values that librdkafka writes differently."""
    for name in ("retry.backoff.ms", "retry.backoff.max.ms"):
        properties[name] = str(max(1, values[name]))
    for name in ("send.buffer.bytes", "receive.buffer.bytes", "connections.max.idle.ms"):
        properties[OPTIONS[name].maps_to] = str(max(0, values[name]))
    if "ssl.endpoint.identification.algorithm" in given:
        properties["ssl.endpoint.identification.algorithm"] = values["ssl.endpoint.identification.algorithm"] or "none"
    if values["ssl.keystore.type"] == "PEM" and "ssl.keystore.location" in properties:
        store = properties.pop("ssl.keystore.location")
        properties |= {"ssl.key.location": store, "ssl.certificate.location": store}
    if "ssl.cipher.suites" in properties:
        properties["ssl.cipher.suites"] = properties["ssl.cipher.suites"].replace(",", ":")
    if "sasl.oauthbearer.token.endpoint.url" in given:
        properties["sasl.oauthbearer.method"] = "oidc"
