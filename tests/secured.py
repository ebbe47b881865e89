"""A broker with TLS, users and rights, and what clients need to come in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import trustme
from confluent_kafka.admin._acl import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
)
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from harness.broker import Broker, Listener, Security
from harness.process import HOST
from tests.brokers import admin

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["MACHINE", "PASSWORD", "Right", "Secured", "grant", "revoke"]

MACHINE: Final = "machine"
"""The name in the one client certificate that there is."""

PASSWORD: Final = "marker-5f1d-password"  # noqa: S105 - of the tests alone
"""Every user's."""

KINDS: Final = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,
}


@dataclass(frozen=True)
class Right:
    """An operation that a user may do.

    Attributes:
        operation: As Kafka's tools spell it, such as Read.
        kind: Of what: `topic`, `group`, `transactional id` or `cluster`.
        name: The name of that.
        prefix: Whether all names that begin so are meant.
    """

    operation: str
    kind: str
    name: str
    prefix: bool = False


class Secured:
    """The broker, its listeners and the files of its certificates.

    Args:
        folder: An empty folder.
        users: Who may log in, all by `PASSWORD`.
    """

    def __init__(self, folder: Path, users: Sequence[str]) -> None:
        self.folder = folder
        authority, foreign = trustme.CA(), trustme.CA()
        self.authority = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        self.foreign = folder / "foreign.pem"
        foreign.cert_pem.write_to_path(str(self.foreign))
        machine = authority.issue_cert("client.example", common_name=MACHINE)
        self.certificate, self.key = folder / "client.pem", folder / "client.key"
        self.certificate.write_bytes(machine.cert_chain_pems[0].bytes())
        self.key.write_bytes(machine.private_key_pem.bytes())
        sound = self._identity("sound", authority.issue_cert(HOST))
        past = datetime.now(UTC) - timedelta(days=1)
        expired = authority.issue_cert(HOST, not_before=past - timedelta(days=9), not_after=past)
        self.listeners = {
            "tls": Listener("TLS", sound),
            "mutual": Listener("MUTUAL", sound, self.authority),
            "scram": Listener("SCRAM", sound, passwords=True),
            "expired": Listener("EXPIRED", self._identity("expired", expired)),
            "other": Listener("OTHER", self._identity("other", authority.issue_cert("a.example"))),
        }
        security = Security(list(self.listeners.values()), dict.fromkeys(users, PASSWORD))
        self.broker = Broker(folder=folder / "kafka", security=security)

    def client(self, listener: str, user: str = "", password: str = PASSWORD) -> dict[str, str]:
        """The settings of a flow or a command that comes in by a listener."""
        options = {"SECURITY_PROTOCOL": "SSL", "SSL_CA_LOCATION": str(self.authority)}
        if listener == "mutual":
            options["SSL_CERTIFICATE_LOCATION"] = str(self.certificate)
            options["SSL_KEY_LOCATION"] = str(self.key)
        if listener == "scram":
            secret = self.folder / f"{user}.password"
            secret.write_text(password)
            options |= {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "SCRAM-SHA-512"}
            options |= {"SASL_USERNAME": user, "SASL_PASSWORD_FILE": str(secret)}
        named = {f"HEADRACE_KAFKA__CLIENT__{name}": value for name, value in options.items()}
        servers = self.listeners[listener].address
        return {"HEADRACE_KAFKA__BOOTSTRAP_SERVERS": servers, **named}

    def _identity(self, name: str, certificate: trustme.LeafCert) -> Path:
        """A key store as Kafka reads it: trustme's keys are in a form that Java doesn't know."""
        key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        form = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.folder / f"{name}.pem"
        path.write_bytes(form + b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
        return path


def _rule(
    user: str, right: Right
) -> tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]:
    return (
        KINDS[right.kind],
        right.name,
        ResourcePatternType.PREFIXED if right.prefix else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[_constant(right.operation)],
        AclPermissionType.ALLOW,
    )


def grant(broker: Broker, user: str, rights: Iterable[Right]) -> None:
    """Give a user rights."""
    bindings = [AclBinding(*_rule(user, right)) for right in rights]
    client = admin(broker)
    for done in client.create_acls(bindings).values():
        done.result(20)


def revoke(broker: Broker, user: str, right: Right) -> None:
    """Take a right away."""
    client = admin(broker)
    for done in client.delete_acls([AclBindingFilter(*_rule(user, right))]).values():
        assert len(done.result(20)) == 1


def _constant(operation: str) -> str:
    """The name of an operation as the client's constants have it: DescribeConfigs, for one."""
    return "".join(f"_{c}" if c.isupper() else c for c in operation).lstrip("_").upper()
