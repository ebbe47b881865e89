"""A link that can be cut, before a server that answers each line."""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import TYPE_CHECKING

import pytest

from harness.link import Link
from harness.process import HOST

if TYPE_CHECKING:
    from collections.abc import Iterator


class Echo(socketserver.StreamRequestHandler):
    """Says again what it is told."""

    def handle(self) -> None:
        """Until the client goes."""
        for line in self.rfile:
            self.wfile.write(line)


@pytest.fixture
def link() -> Iterator[Link]:
    """A link to a server that runs."""
    with (
        Link() as link,
        socketserver.ThreadingTCPServer((HOST, link.target), Echo) as server,
    ):
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield link
        server.shutdown()
        thread.join()


def connected(link: Link) -> socket.socket:
    """A client that waits half a second for an answer."""
    return socket.create_connection((HOST, link.port), timeout=0.5)


def test_passes_both_ways(link: Link) -> None:
    """What is sent arrives, and so does the answer, however large."""
    with connected(link) as client:
        sent = b"x" * 300_000 + b"\n"
        client.sendall(sent)
        got = b""
        while len(got) < len(sent):
            got += client.recv(1 << 16)
    assert got == sent


def test_cut_holds_all_up(link: Link) -> None:
    """Nothing passes while it is cut, on old connections and new; all of it once it is mended."""
    with connected(link) as old:
        old.sendall(b"1\n")
        assert old.recv(10) == b"1\n"
        link.cut()
        with connected(link) as new:
            for client in (old, new):
                client.sendall(b"2\n")
                with pytest.raises(TimeoutError):
                    client.recv(10)
            link.mend()
            assert [client.recv(10) for client in (old, new)] == [b"2\n", b"2\n"]


def test_an_end_that_closes_is_passed_on(link: Link) -> None:
    """The server sees that its client has gone, and the client that the server has."""
    with connected(link) as client:
        client.sendall(b"1\n")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b"1\n"
        assert client.recv(10) == b""
