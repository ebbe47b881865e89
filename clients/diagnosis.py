"""Why a broker doesn't answer: a refused login or certificate looks like one that is away.

librdkafka tries again and again, and its calls fail as if nobody were there. What is wrong it says
only to a callback, and of a certificate not even there.
"""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import Consumer

__all__ = ["diagnosis"]

POLL_S: Final = 0.2
TLS_S: Final = 2.0
PORT: Final = 9092
"""librdkafka's own default."""

ALERT: Final = "ssl/tls alert"
"""How OpenSSL begins what the other end says of a client's certificate."""

UNTRUSTED: Final = "certificate verify failed"
"""OpenSSL's own words, which can come with the code of a connection that just failed."""

ISSUER: Final = frozenset({2, 18, 19, 20, 21})
"""OpenSSL's codes of a certificate that nobody trusted has signed."""


def diagnosis(
    connect: Callable[..., Consumer], servers: str, client: Mapping[str, str], listen_s: float
) -> str:
    """What a new connection says of why it fails; empty where it says nothing.

    Args:
        connect: Makes a consumer, with further options.
        servers: The broker's addresses.
        client: librdkafka's options.
        listen_s: For how long it is listened to, in seconds.
    """
    error = _heard(connect, listen_s)
    if error is None:
        return ""
    told = error.str().replace("\n", " ")
    if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - librdkafka's own spelling
        user = client.get("sasl.username", "")
        return f"kafka.client: sasl.username {user}: the broker refuses the login: {told}"
    if error.code() == KafkaError._SSL or UNTRUSTED in told:  # noqa: SLF001
        return f"kafka.client: {_untrusted(servers, client) or told}"
    if ALERT in told:
        return f"kafka.client: ssl.certificate.location: the broker refuses who comes: {told}"
    return told


def _heard(connect: Callable[..., Consumer], listen_s: float) -> KafkaError | None:
    """The first error of a connection, which librdkafka needn't log as well."""
    heard: list[KafkaError] = []
    consumer = connect(error_cb=heard.append, log_level=0)
    deadline = time.monotonic() + listen_s
    while not heard and time.monotonic() < deadline:
        consumer.poll(POLL_S)
    consumer.close()
    return heard[0] if heard else None


def _untrusted(servers: str, client: Mapping[str, str]) -> str:
    """What is wrong with the certificate of the first server that has one; empty if nothing is."""
    if client.get("enable.ssl.certificate.verification", "true") == "false":
        return ""
    for server in servers.split(","):
        with suppress(OSError, ValueError):
            host, port = _place(server)
            try:
                _shake_hands(host, port, _context(client))
            except ssl.SSLCertVerificationError as error:
                way_out = "see ssl.ca.location" if error.verify_code in ISSUER else "mend it there"
                return (
                    f"the certificate of {host}:{port} is not trusted: "
                    f"{error.verify_message.rstrip('.')}; {way_out}"
                )
    return ""


def _context(client: Mapping[str, str]) -> ssl.SSLContext:
    """The trust that librdkafka has by these options."""
    context = ssl.create_default_context(
        cafile=client.get("ssl.ca.location"), cadata=client.get("ssl.ca.pem")
    )
    if client.get("ssl.endpoint.identification.algorithm", "https") == "none":
        context.check_hostname = False
    return context


def _shake_hands(host: str, port: int, context: ssl.SSLContext) -> None:
    with (
        socket.create_connection((host, port), TLS_S) as plain,
        context.wrap_socket(plain, server_hostname=host),
    ):
        pass


def _place(server: str) -> tuple[str, int]:
    """Host and port of an address, which may begin with a protocol."""
    host, colon, port = server.strip().rpartition("://")[2].rpartition(":")
    return (host.strip("[]"), int(port)) if colon else (port, PORT)
