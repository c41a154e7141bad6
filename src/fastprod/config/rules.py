"""Java's rules between options, and those of TLS and SASL."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from . import jaas, pem
from .options import ALIASES, OPTIONS, is_sensitive
from .parse import show

_client_numbers = itertools.count(1)


def take_schemes(values: dict[str, Any]) -> set[str]:
    """Removes the schemes from bootstrap.servers, as Java does. Returns the security protocols among them, in capitals.

    Source: org.apache.kafka.common.utils.Utils.getHost.
    """
    found = [entry.rpartition("://") for entry in (values["bootstrap.servers"] or "").split(",")]
    values["bootstrap.servers"] = ",".join(dict.fromkeys(host for _, _, host in found))
    return {scheme.upper() for scheme, _, _ in found}.intersection(OPTIONS["security.protocol"].valid or ())


def read_pem(properties: dict[str, str], spelling: Mapping[str, str]) -> None:
    """Normalizes PEM for librdkafka. If librdkafka cannot read a file's PEM, the text replaces the path."""
    spelling = dict(spelling)
    for part in ("ca", "certificate", "key"):
        file = properties.get(f"ssl.{part}.location", "")
        if os.access(file, os.R_OK) and os.path.isfile(file) and f"ssl.{part}.pem" not in properties:
            with open(file, encoding="latin-1") as opened:
                text = opened.read()
            if not pem.is_plain(text):
                del properties[f"ssl.{part}.location"]
                properties[f"ssl.{part}.pem"] = text
                spelling[f"ssl.{part}.pem"] = f"ssl.{part}.location={show('', file)}"
    for name in [name for name in properties if name.endswith(".pem")]:
        kind = pem.PRIVATE_KEY if name.endswith("key.pem") else pem.CERTIFICATE
        try:
            properties[name] = pem.normalize(properties[name], kind)
        except ValueError as error:  # never from it: the traceback would show the text
            given = spelling.get(ALIASES.get(name, name)) or spelling.get(name, name)
            raise ConfigError(f"{given}: {error}") from None


def check_together(values: dict[str, Any], given: Mapping[str, Any], notes: list[str]) -> None:
    """Java's rules between options. If a default contradicts a given option, ``values`` gets the default's replacement.

    Source: ProducerConfig.postProcessParsedConfig and KafkaProducer.configureDeliveryTimeout.
    """
    if not values["bootstrap.servers"]:
        raise ConfigError("bootstrap.servers is required: host:port of one or more brokers")
    if values["batch.size"] > values["buffer.memory"]:
        raise ConfigError(
            f"batch.size={values['batch.size']} is larger than buffer.memory={values['buffer.memory']}: "
            "raise buffer.memory to at least batch.size x partitions x 2"
        )
    if "batch.size" in given and values["batch.size"] > values["max.request.size"]:
        raise ConfigError(
            f"batch.size={values['batch.size']} is larger than max.request.size={values['max.request.size']}: "
            "a full batch could not be sent; lower batch.size or raise max.request.size"
        )
    _check_delivery_timeout(values, given, notes)
    _check_idempotence(values, given)
    for first, longest in (
        ("retry.backoff.ms", "retry.backoff.max.ms"),
        ("reconnect.backoff.ms", "reconnect.backoff.max.ms"),
    ):
        if values[first] > values[longest]:
            if longest not in given:
                values[longest] = values[first]
            else:
                if first in given:
                    notes.append(f"{first}={values[first]} is lowered to {longest}={values[longest]}")
                values[first] = values[longest]
    if not values["client.id"]:
        values["client.id"] = f"producer-{values['transactional.id'] or next(_client_numbers)}"


def _check_delivery_timeout(values: dict[str, Any], given: Mapping[str, Any], notes: list[str]) -> None:
    linger, request, delivery = (values[n] for n in ("linger.ms", "request.timeout.ms", "delivery.timeout.ms"))
    least = math.ceil(linger) + request
    if delivery >= least:
        return
    rule = f"delivery.timeout.ms={delivery} is less than linger.ms={linger:g} + request.timeout.ms={request}"
    if "delivery.timeout.ms" in given:
        raise ConfigError(f"{rule}: it must be at least {least}, so that one attempt can finish")
    values["delivery.timeout.ms"] = least
    notes.append(f"{rule}: it is raised to {least}")


def _check_idempotence(values: dict[str, Any], given: Mapping[str, Any]) -> None:
    if values["enable.idempotence"]:
        in_flight = values["max.in.flight.requests.per.connection"]
        if in_flight > 5:
            raise ConfigError(
                f"max.in.flight.requests.per.connection={in_flight}: must be at most 5 with enable.idempotence=true, "
                "the default; enable.idempotence=false allows more, but retries may then reorder records"
            )
        for name, wanted, kept in (
            ("acks", "all", values["acks"] == "all"),
            ("retries", "at least 1", values["retries"] > 0),
        ):
            if not kept and "enable.idempotence" in given:
                raise ConfigError(f"{name}={values[name]}: must be {wanted} with enable.idempotence=true")
            values["enable.idempotence"] &= kept  # only a default, so it is switched off, as in Java
    if values["transactional.id"] and not values["enable.idempotence"]:
        raise ConfigError("transactional.id needs enable.idempotence=true, acks=all and retries of at least 1")


def check_security(properties: Mapping[str, str], values: Mapping[str, Any], notes: list[str]) -> None:
    protocol = properties["security.protocol"].upper()
    _check_unsecured_token(properties)
    _check_mechanism(properties.get("sasl.mechanism", "GSSAPI"), values)
    secrets = [name for name in properties if name.startswith("sasl.") and is_sensitive(name)]
    if values["sasl.oauthbearer.token.provider"]:
        secrets.append("sasl.oauthbearer.token.provider")
    if secrets and not protocol.endswith("SSL"):
        risk = f"{', '.join(secrets)} set while security.protocol={protocol}: credentials would be sent unencrypted"
        if not values["allow.plaintext.credentials"]:
            raise ConfigError(f"{risk}; use SASL_SSL, or allow it with allow.plaintext.credentials=true")
        notes.append(risk)
    for name in ("enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm"):
        if properties.get(name) in ("false", "f", "0", "none") and protocol.endswith("SSL"):
            notes.append(f"{name}={properties[name]}: an attacker on the network can impersonate the broker")
    has_key, has_certificate = (
        bool({f"ssl.{part}.location", f"ssl.{part}.pem"} & properties.keys()) for part in ("key", "certificate")
    )
    if has_key != has_certificate:
        given, missing = ("key", "certificate") if has_key else ("certificate", "key")
        raise ConfigError(f"a client {given} is set without its {missing}: give ssl.{missing}.location too")


def _check_unsecured_token(properties: Mapping[str, str]) -> None:
    """Checks the syntax here, because librdkafka's errors would quote the value."""
    text = properties.get("sasl.oauthbearer.config", "")
    if properties.get("enable.sasl.oauthbearer.unsecure.jwt") == "true" and text:
        names = "principal|principalClaimName|scope|scopeClaimName|extension_[A-Za-z]+"
        pair = f"(?:(?:{names})=[^ ]+|lifeSeconds=[0-9]{{1,9}})"
        if not re.fullmatch(f"{pair}(?: +{pair})*", text):
            raise ConfigError(
                "sasl.oauthbearer.config=[hidden]: must be name=value pairs, separated by spaces; the names are "
                "principal, principalClaimName, scope, scopeClaimName, lifeSeconds and extension_<name>"
            )


def _check_mechanism(mechanism: str, values: Mapping[str, Any]) -> None:
    login: jaas.Login | None = values["sasl.jaas.config"]
    if login and mechanism not in login.mechanisms:
        wanted = " or ".join(login.mechanisms)
        raise ConfigError(f"the login module of sasl.jaas.config is for sasl.mechanism={wanted}, not {mechanism}")
    if values["sasl.oauthbearer.token.provider"]:
        if mechanism != "OAUTHBEARER":
            raise ConfigError(f"sasl.oauthbearer.token.provider needs sasl.mechanism=OAUTHBEARER, not {mechanism}")
        if values["sasl.oauthbearer.token.endpoint.url"]:
            raise ConfigError(
                "sasl.oauthbearer.token.provider and sasl.oauthbearer.token.endpoint.url exclude each other: "
                "give one of them"
            )
