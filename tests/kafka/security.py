"""A real broker with a listener for each way to encrypt and to authenticate, and what clients need for them."""

from __future__ import annotations

from pathlib import Path

import trustme
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.kafka.node import free_ports
from tests.kafka.server import KafkaServer

USER, PASSWORD = "alice", "alice-s3cret"
SPACED_USER, SPACED_PASSWORD = " bob", " \tbob's s3cret "

# Listener -> how it speaks. MUTUAL asks for the client's certificate; that of MISNAMED is made out to another host.
LISTENERS = {
    "SSL": "SSL",
    "MUTUAL": "SSL",
    "MISNAMED": "SSL",
    "SASL_SSL": "SASL_SSL",
    "SASL_PLAINTEXT": "SASL_PLAINTEXT",
}
_JAAS = "org.apache.kafka.common.security"
_PLAIN_USERS = f'user_{USER}="{PASSWORD}" "user_{SPACED_USER}"="{SPACED_PASSWORD}"'
_MODULES = {
    "PLAIN": f"{_JAAS}.plain.PlainLoginModule required {_PLAIN_USERS};",
    "SCRAM-SHA-256": f"{_JAAS}.scram.ScramLoginModule required;",
    "SCRAM-SHA-512": f"{_JAAS}.scram.ScramLoginModule required;",
    # Without a handler of its own Kafka takes any token whose claims hold, signed or not.
    "OAUTHBEARER": f'{_JAAS}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";',
}


class SecureKafka(KafkaServer):
    """Its certificates are PEM files: `ca`, of the authority; `other_ca`, of nobody's; `client`, key and certificate.

    The server's own listener, without encryption, stays open for a test to look on.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
        self.ca, self.other_ca, self.client = (directory / f"{name}.pem" for name in ("ca", "other-ca", "client"))
        broker, misnamed = directory / "broker.pem", directory / "misnamed.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca))
        trustme.CA().cert_pem.write_to_path(str(self.other_ca))
        _write_store(authority.issue_cert("client@fastprod.invalid"), self.client)
        _write_store(authority.issue_cert("127.0.0.1"), broker)
        _write_store(authority.issue_cert("kafka.fastprod.invalid"), misnamed)
        self.properties.update(self._listeners())
        self.properties.update(_stores({"SSL": broker, "MUTUAL": broker, "MISNAMED": misnamed, "SASL_SSL": broker}))
        self.properties["listener.name.mutual.ssl.client.auth"] = "required"
        self.properties["listener.name.mutual.ssl.truststore.type"] = "PEM"
        self.properties["listener.name.mutual.ssl.truststore.location"] = self.ca
        for listener in ("sasl_ssl", "sasl_plaintext"):
            self.properties[f"listener.name.{listener}.sasl.enabled.mechanisms"] = ",".join(_MODULES)
            for mechanism, module in _MODULES.items():
                self.properties[f"listener.name.{listener}.{mechanism.lower()}.sasl.jaas.config"] = module
        # So that a connection ends with its token unless the client shows a new one (KIP-368).
        self.properties["listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms"] = 3_600_000

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self._ports[listener]}"

    def start(self, timeout: float = 60.0) -> None:
        super().start(timeout)
        mechanisms = (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        for mechanism in mechanisms:
            for user, password in ((USER, PASSWORD), (SPACED_USER, SPACED_PASSWORD)):
                known = UserScramCredentialUpsertion(user, ScramCredentialInfo(mechanism, 4096), password.encode())
                for future in self.admin.alter_user_scram_credentials([known]).values():
                    future.result(timeout)

    def _listeners(self) -> dict[str, object]:
        added = "".join(f",{name}://{self.address(name)}" for name in LISTENERS)
        own = f"PLAINTEXT://{self.bootstrap_servers}"
        protocols = "".join(f",{name}:{protocol}" for name, protocol in LISTENERS.items())
        return {
            "listeners": f"{own},CONTROLLER://127.0.0.1:{self.controller_port}{added}",
            "advertised.listeners": own + added,
            "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}",
            "inter.broker.listener.name": "PLAINTEXT",
        }


def _stores(files: dict[str, Path]) -> dict[str, object]:
    properties: dict[str, object] = {}
    for listener, file in files.items():
        properties[f"listener.name.{listener.lower()}.ssl.keystore.type"] = "PEM"
        properties[f"listener.name.{listener.lower()}.ssl.keystore.location"] = file
    return properties


def _write_store(certificate: trustme.LeafCert, file: Path) -> None:
    """Key and certificates in one file, as Kafka reads them; of keys it knows PKCS#8 alone."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain)
