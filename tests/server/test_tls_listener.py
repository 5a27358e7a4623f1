"""Connections that shake hands, or never do, are counted as those that have."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edgesppo.server import listen
from edgesppo.server.tls_listener import TlsListener
from tests.support.certificate import make as make_certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_MISSING = shutil.which("openssl") is None
pytestmark = pytest.mark.skipif(_MISSING, reason="openssl makes the certificate")
MOST = 3
PATIENCE_S = 30


class Greeting(asyncio.Protocol):
    """A connection that says hello, and is in a set while it lives."""

    living: set[Greeting]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.living.add(self)
        transport.write(b"hello")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.living.discard(self)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """A TlsListener on a free port, and connections to it."""

    def __init__(
        self, cert: Path, key: Path, handshake_s: float = PATIENCE_S, most_of_address: int = MOST
    ) -> None:
        self.living: set[Greeting] = set()
        self.refused: list[str] = []
        kind = type("Kind", (Greeting,), {"living": self.living})
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        self.socket = listen.on_address("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.trusting = ssl.create_default_context(cafile=cert)
        self.listener = TlsListener(
            self.socket,
            kind,
            connected=self.living,
            most=MOST,
            most_of_address=most_of_address,
            on_refused=self.refused.append,
            ssl=context,
            ssl_handshake_timeout=handshake_s,
        )
        self._open: list[Peer] = []

    async def connect(self, **tls: Any) -> Peer:
        peer = await asyncio.open_connection("127.0.0.1", self.port, **tls)
        self._open.append(peer)
        return peer

    async def greet(self, **more: Any) -> bytes:
        """What a client that shakes hands is told; nothing if it is turned away."""
        try:
            tls = {"ssl": self.trusting, "server_hostname": "localhost"}
            reader, _ = await self.connect(**tls, **more)
            return await reader.read(5)
        except ConnectionError:
            return b""

    async def wait_for(self, n_handshakes: int) -> None:
        async def wait() -> None:
            while len(self.listener._handshakes) != n_handshakes:
                await asyncio.sleep(0.005)

        await asyncio.wait_for(wait(), PATIENCE_S)

    async def end(self) -> None:
        await self.listener.close()
        for _, writer in self._open:
            writer.close()
        self.socket.close()


def serve(
    certificate: tuple[Path, Path], use: Callable[[Served], Awaitable[None]], **more: Any
) -> None:
    async def run() -> None:
        served = Served(*certificate, **more)
        try:
            await use(served)
        finally:
            await served.end()

    asyncio.run(run())


def test_handshakes_count_and_one_too_many_is_closed_at_once(
    certificate: tuple[Path, Path],
) -> None:
    async def use(served: Served) -> None:
        assert await served.greet() == b"hello"
        silent = [await served.connect() for _ in range(MOST - 1)]
        await served.wait_for(MOST - 1)
        reader, _ = await served.connect()
        assert await asyncio.wait_for(reader.read(1), PATIENCE_S) == b""
        assert await served.greet() == b""
        assert len(served.refused) == 2
        silent[0][1].close()
        await served.wait_for(MOST - 2)
        assert await served.greet() == b"hello"

    serve(certificate, use)


@pytest.mark.skipif(sys.platform == "darwin", reason="this machine is only 127.0.0.1 there")
def test_one_address_cannot_have_all_handshakes(certificate: tuple[Path, Path]) -> None:
    async def use(served: Served) -> None:
        await served.connect()
        await served.wait_for(1)
        assert await served.greet() == b""
        assert served.refused == ["too_many_of_address"]
        assert await served.greet(local_addr=("127.0.0.2", 0)) == b"hello"

    serve(certificate, use, most_of_address=1)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" * 9])
def test_what_is_no_handshake_frees_its_place(certificate: tuple[Path, Path], sent: bytes) -> None:
    async def use(served: Served) -> None:
        for _ in range(2 * MOST):
            reader, writer = await served.connect()
            writer.write(sent)
            while await asyncio.wait_for(reader.read(100), PATIENCE_S):
                pass
        await served.wait_for(0)
        assert await served.greet() == b"hello"

    serve(certificate, use)


def test_who_never_shakes_hands_has_until_the_deadline(certificate: tuple[Path, Path]) -> None:
    async def use(served: Served) -> None:
        silent = [await served.connect() for _ in range(MOST)]
        for reader, _ in silent:
            assert await asyncio.wait_for(reader.read(1), PATIENCE_S) == b""
        await served.wait_for(0)
        assert await served.greet() == b"hello"

    serve(certificate, use, handshake_s=0.2)


def test_at_the_end_nothing_is_left_of_a_handshake(certificate: tuple[Path, Path]) -> None:
    async def use(served: Served) -> None:
        reader, _ = await served.connect()
        await served.wait_for(1)
        await served.listener.close()
        assert await asyncio.wait_for(reader.read(1), PATIENCE_S) == b""
        assert not served.listener._handshakes

    serve(certificate, use)
