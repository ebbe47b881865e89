"""The server: TLS, where it may listen, and what keeps it from starting."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trustme
import uvicorn

from harness.process import free_port
from serving import server
from serving.app import ReadyMade, create_app
from tests.cli.conftest import headrace
from tests.serving.services import SECRET, FakeModel, settings_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flows.settings import Settings


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority of certificates."""
    return trustme.CA()


@contextmanager
def running(settings: Settings) -> Iterator[int]:
    """A server as `run` would start it, in a thread; gives its port."""
    server._check_tls(settings)
    with server._bound(settings) as listening:
        app = create_app(settings, ReadyMade(FakeModel()))
        served = uvicorn.Server(server._config(settings, lambda: app))
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listening]})
        thread.start()
        until(lambda: served.started)
        yield listening.getsockname()[1]
        served.should_exit = True
        thread.join(20)


def files_of(certificate: trustme.LeafCert, folder: Path) -> dict[str, str]:
    """A certificate and its key as files."""
    chain, key = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    return {"tls_cert": str(chain), "tls_key": str(key)}


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """What a client needs to trust the server."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def settings_for(folder: Path, **serve: Any) -> Settings:
    """Settings of a server on a free port of this machine."""
    return settings_of(folder, serve={"parts": "search", "port": 0, **serve})


def test_tls(authority: trustme.CA, tmp_path: Path) -> None:
    """With a certificate the server speaks TLS, and nothing else."""
    files = files_of(authority.issue_cert("127.0.0.1"), tmp_path)
    with running(settings_for(tmp_path, **files)) as port:
        url = f"https://127.0.0.1:{port}/health/live"
        assert httpx.get(url, verify=trusting(authority)).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(url)
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http"))


def test_client_certificates(authority: trustme.CA, tmp_path: Path) -> None:
    """With an authority of clients, a client without a certificate of its own is not heard."""
    files = files_of(authority.issue_cert("127.0.0.1"), tmp_path)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with running(settings_for(tmp_path, **files, tls_client_ca=str(ca))) as port:
        url = f"https://127.0.0.1:{port}/health/live"
        with pytest.raises(httpx.TransportError):
            httpx.get(url, verify=trusting(authority))
        foreign = trusting(authority)
        trustme.CA().issue_cert("client").configure_cert(foreign)
        with pytest.raises(httpx.TransportError):
            httpx.get(url, verify=foreign)
        known = trusting(authority)
        authority.issue_cert("client").configure_cert(known)
        assert httpx.get(url, verify=known).status_code == 200


def told(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """How a server that can't start ends: its exit code, and its one line."""
    done = headrace(environment, "serve", *arguments)
    assert done.err.startswith("headrace: "), done.err
    assert done.err.count("\n") == 1, done.err
    return done.code, done.err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104
def test_open_to_this_machine_alone(host: str, tmp_path: Path) -> None:
    """Without tokens no other machine can reach it, whatever the settings say."""
    code, line = told({"HEADRACE_SERVE__HOST": host}, "ingest")
    assert code == 2
    assert "auth.jwt_key" in line
    settings = settings_for(tmp_path)
    with server._bound(settings) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_open_to_all_with_tokens(tmp_path: Path) -> None:
    """With tokens it listens everywhere, unless the settings say where."""
    settings = settings_of(tmp_path, auth={"jwt_key": SECRET}, serve={"port": 0})
    with server._bound(settings) as listening:
        assert listening.getsockname()[0] == "0.0.0.0"  # noqa: S104
    own = settings_of(tmp_path, auth={"jwt_key": SECRET}, serve={"port": 0, "host": "127.0.0.1"})
    with server._bound(own) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_port_taken() -> None:
    """A port that is taken is named."""
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        code, line = told({}, "ingest", "--port", str(port))
    assert code == 1
    assert f"127.0.0.1:{port}" in line


@pytest.mark.parametrize(
    ("environment", "arguments", "name"),
    [
        ({}, ["both"], "PART: both"),
        ({}, ["ingest", "--workers", "0"], "--workers"),
        ({"HEADRACE_SERVE__PARTS": "page"}, [], "serve.parts"),
        ({"HEADRACE_SERVE__TLS_CERT": "/no/such"}, ["ingest"], "serve.tls_key"),
        (
            {"HEADRACE_SERVE__TLS_CERT": "/no/such", "HEADRACE_SERVE__TLS_KEY": "/no/such"},
            ["ingest"],
            "serve.tls_cert",
        ),
        ({"HEADRACE_AUTH__JWT_KEY": "too short"}, ["ingest"], "auth.jwt_key"),
        ({"HEADRACE_AUTH__JWT_KEY_FILE": "/no/such"}, ["ingest"], "auth.jwt_key_file"),
        ({"HEADRACE_AUTH__JWKS_URL": "http://issuer.example"}, ["ingest"], "auth.jwks_url"),
        ({"HEADRACE_AUTH__JWKS_URL": "file:///etc/passwd"}, ["ingest"], "auth.jwks_url"),
    ],
)
def test_wrong_usage(environment: dict[str, str], arguments: list[str], name: str) -> None:
    """A wrong setting or argument is named, and no secret is shown."""
    code, line = told(environment, *arguments)
    assert code == 2
    assert name in line
    assert "too short" not in line


def test_key_from_a_file(tmp_path: Path) -> None:
    """The key of tokens can come from a file."""
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    settings = settings_of(tmp_path, auth={"jwt_key_file": str(file)})
    assert settings.auth.required
    assert settings.auth.jwt_key is not None
    assert settings.auth.jwt_key.get_secret_value() == SECRET
    assert SECRET not in repr(settings)
