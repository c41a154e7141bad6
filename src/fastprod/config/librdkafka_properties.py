"""The properties that a producer's rd_kafka_conf_t gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .options import OPTIONS
from .parse import text_of


def _socket_timeout_ms(request_timeout_ms: int) -> int:
    """What makes librdkafka repeat a request that was not answered within a second after request.timeout.ms.

    It looks for such requests once a second (and the sender wakes it for that), connects anew and waits
    retry.backoff.ms, so it begins to look a little early: of 216 the last was repeated after 0.9 s.
    """
    return max(10, request_timeout_ms - min(250, request_timeout_ms // 4))


def librdkafka_properties(
    values: Mapping[str, Any], given: Mapping[str, Any], passed: Mapping[str, str]
) -> dict[str, str]:
    """Every property whose librdkafka default is not what fastprod needs or Java has, and the user's own."""
    properties = {}
    for option in OPTIONS.values():
        # TLS and SASL defaults are the same on both sides; set needlessly, librdkafka only complains of them.
        optional = option.name.startswith(("ssl.", "sasl.", "enable.ssl."))
        if option.maps_to and (option.name in given or not optional) and (text := text_of(values[option.name])):
            properties[option.maps_to] = text
    properties |= {
        # fastprod lingers, bounds memory and chooses partitions: librdkafka is to do none of it again, but for
        # the last of the lingering, in which batches of a partition meet and share a request.
        "linger.ms": f"{min(values['linger.ms'] / 5, 1):g}",
        "queue.buffering.max.messages": "0",
        "queue.buffering.max.kbytes": "2147483647",
        "sticky.partitioning.linger.ms": "0",
        # Batches that wait for the same partition may share a request.
        "batch.size": str(min(max(values["batch.size"], 1_000_000), values["max.request.size"])),
        "batch.num.messages": "1000000",
        "socket.keepalive.enable": "true",
        "socket.timeout.ms": str(_socket_timeout_ms(values["request.timeout.ms"])),
        "log.queue": "true",
        # librdkafka's way forgets the brokers, and with them the leader epochs: it then believes a broker that is not
        # yet aware that it was deposed. ProducerMetadata has another.
        "metadata.recovery.strategy": "none",
    }
    # Java's values that librdkafka writes differently.
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
    level = f"compression.{values['compression.type']}.level"
    if level in given:
        properties["compression.level"] = str(values[level])
        if passed.get("compression.level", properties["compression.level"]) != properties["compression.level"]:
            raise ConfigError(f"{level} and compression.level are given with different values: leave one out")
    if not values["enable.idempotence"] and values["max.in.flight.requests.per.connection"] == 1:
        properties["linger.ms"] = "0"  # what fastprod hands over here is one request (Sender.feed()): nothing joins it
    if values["transactional.id"]:  # librdkafka demands that neither outlive the transaction
        for name in ("message.timeout.ms", "socket.timeout.ms"):
            properties[name] = str(min(int(properties[name]), values["transaction.timeout.ms"]))
    return properties
