"""`WrongKeys`: an address that sends many wrong API keys has to wait before more are looked at."""

from __future__ import annotations

import collections
import ipaddress
import math
import time
from typing import TYPE_CHECKING, Any

from edgesppo.server.budgets import Bucket
from edgesppo.server.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.types import Scope

# So many wrong keys are looked at at once, and as many in each minute: one every two seconds.
PER_MINUTE = 30
_MOST = 4096  # addresses that are remembered, those of the latest wrong keys
_IPV6_BITS = 64  # of an address that tell whose it is; the rest its owner chooses
_UNIX = "unix socket"


class WrongKeys:
    """How many wrong keys each address has sent of late, in bounded memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self._clock = clock
        self._most = most
        self._buckets: collections.OrderedDict[str, Bucket] = collections.OrderedDict()

    def require_few(self, scope: Scope) -> None:
        """Raise a 429 if the address has sent too many to look at another one now."""
        bucket = self._buckets.get(peer(scope.get("client")))
        if bucket is None or (wait := bucket.wait_s(1)) <= 0:
            return
        raise ApiError(
            429,
            f"too many wrong API keys came from your address; ask again in {math.ceil(wait)} s",
            code="too_many_wrong_keys",
            headers={"Retry-After": str(math.ceil(wait))},
        )

    def count(self, scope: Scope) -> None:
        """Note that the address has sent a wrong key."""
        name = peer(scope.get("client"))
        bucket = self._buckets.setdefault(name, Bucket(PER_MINUTE, self._clock))
        if bucket.wait_s(1) <= 0:  # never into debt: others of the address would wait for it
            bucket.use(1)
        self._buckets.move_to_end(name)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)


def peer(client: Sequence[Any] | None) -> str:
    """Who is at the other end: an address, of IPv6 its network, or a unix socket's clients.

    `client` is the host and port, as ASGI and sockets tell them.
    """
    if not client:
        return _UNIX
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return str(client[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), _IPV6_BITS), strict=False))
