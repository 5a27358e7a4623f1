"""`TlsListener`: accepts connections for TLS; those that shake hands count as those that have."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from edgesppo.server.wrong_keys import peer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sized

# No descriptor is free: to try at once would keep the processor busy until one is.
_PAUSE_S = 1.0


class TlsListener:
    """Serves a listening socket, as asyncio's own server does, with at most `most` connections.

    One too many is closed at once: to tell it so would take a handshake, which is what costs.
    `on_refused` is called then, with the reason. No address may have more than `most_of_address`
    handshakes at once. `connected` are the connections that have shaken hands; `options` are those
    of the handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        connect: Callable[[], asyncio.Protocol],
        *,
        connected: Sized,
        most: int,
        most_of_address: int,
        on_refused: Callable[[str], None],
        **options: Any,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._connect = connect
        self._connected = connected
        self._most = most
        self._most_of_address = most_of_address
        self._on_refused = on_refused
        self._options = options
        self._handshakes: dict[asyncio.Task[None], str] = {}  # whose each is
        self._accepting = asyncio.ensure_future(self._accept_all())

    async def close(self) -> None:
        """Accept no more, and give up the handshakes under way."""
        tasks = [self._accepting, *self._handshakes]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _accept_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, address = await loop.sock_accept(self._listener)
            except ConnectionError:  # it is gone already
                await asyncio.sleep(0)
                continue
            except OSError:
                await asyncio.sleep(_PAUSE_S)
                continue
            name = peer(address)
            if reason := self._reason_to_refuse(name):
                accepted.close()
                self._on_refused(reason)
                await asyncio.sleep(0)  # sock_accept does not wait while more have come
                continue
            task = asyncio.ensure_future(self._shake_hands(accepted))
            self._handshakes[task] = name
            task.add_done_callback(self._handshakes.pop)

    def _reason_to_refuse(self, name: str) -> str | None:
        """Why a connection of that address is one too many; None if it is not."""
        if len(self._connected) + len(self._handshakes) >= self._most:
            return "too_many"
        of_address = sum(other == name for other in self._handshakes.values())
        return "too_many_of_address" if of_address >= self._most_of_address else None

    async def _shake_hands(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):  # of TLS, of time, of the other side's going
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(self._connect, accepted, **self._options)
