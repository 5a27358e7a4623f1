"""Rate and token budgets: what each API key may use per minute."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from edgesppo.server.api_keys import BUDGETS
from edgesppo.server.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.server.api_keys import ApiKey

_MINUTE = 60.0
_HEADER = "x-ratelimit"
_FIGURES = ("limit", "remaining", "reset")
# What `Budgets.headers` may have, for pages of other sites, which see only what is named.
HEADERS = [f"{_HEADER}-{figure}-{kind}" for figure in _FIGURES for kind in BUDGETS]


class Bucket:
    """A budget that refills steadily; using more than it holds makes it wait until it is even."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self._size = float(per_minute)
        self._left = self._size
        self._clock = clock
        self._at = clock()

    @property
    def left(self) -> float:
        """What may be used now; negative if more was used than there was."""
        self._refill()
        return self._left

    def use(self, amount: float) -> None:
        """Take an amount, even if it is more than is left; a negative one is given back."""
        self._refill()
        self._left -= amount

    def wait_s(self, amount: float) -> float:
        """The seconds until `amount` is left, or all that it holds; 0 if it is now."""
        self._refill()
        missing = min(amount, self._size) - self._left
        return max(0.0, missing * _MINUTE / self._size)

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._size, self._left + (now - self._at) * self._size / _MINUTE)
        self._at = now


class Budgets:
    """The budgets of all keys."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def spend_request(self, key: ApiKey | None) -> None:
        """Count one request. Raises a 429 if the key has none left, or no tokens."""
        if key is None:
            return
        for kind in BUDGETS:
            bucket = self._bucket(key, kind)
            if bucket is not None and (wait := bucket.wait_s(1)) > 0:
                raise _used_up(key, kind, wait)
        if (bucket := self._bucket(key, "requests")) is not None:
            bucket.use(1)

    def spend_part(self, key: ApiKey | None, part: float) -> None:
        """Count a part of a request, or more than one. Raises a 429 if the key is in debt."""
        if key is not None and (bucket := self._bucket(key, "requests")) is not None:
            if (wait := bucket.wait_s(0)) > 0:
                raise _used_up(key, "requests", wait)
            bucket.use(part)

    def reserve_tokens(self, key: ApiKey | None, n: int) -> None:
        """Take as many tokens as a request may need. Raises a 429 if the key has less left.

        More than the budget holds is had when all of it is there, which then has to refill.
        """
        if key is not None and (bucket := self._bucket(key, "tokens")) is not None:
            if (wait := bucket.wait_s(n)) > 0:
                raise _used_up(key, "tokens", wait)
            bucket.use(n)

    def return_tokens(self, key: ApiKey | None, n: int) -> None:
        """Give back what was reserved and not needed."""
        if key is not None and (bucket := self._bucket(key, "tokens")) is not None:
            bucket.use(-n)

    def headers(self, key: ApiKey) -> list[tuple[bytes, bytes]]:
        """What is left of a key's budgets, by OpenAI's names; nothing of a key without any.

        A reset is when the whole budget can be used again, as a duration such as 1m30s.
        """
        found: list[tuple[bytes, bytes]] = []
        for kind in BUDGETS:
            bucket, limit = self._bucket(key, kind), getattr(key, kind)
            if bucket is None:
                continue
            left, reset = max(0, math.floor(bucket.left)), _duration(bucket.wait_s(limit))
            figures = zip(_FIGURES, (limit, left, reset), strict=True)
            found += [(f"{_HEADER}-{name}-{kind}".encode(), f"{n}".encode()) for name, n in figures]
        return found

    def _bucket(self, key: ApiKey, kind: str) -> Bucket | None:
        per_minute = getattr(key, kind)
        if per_minute is None:
            return None
        known = self._buckets.get((key.name, kind))
        if known is None:
            known = self._buckets[key.name, kind] = Bucket(per_minute, self._clock)
        return known


def _duration(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _used_up(key: ApiKey, kind: str, wait: float) -> ApiError:
    less = ", or a request for fewer would fit (max_tokens)" if kind == "tokens" else ""
    return ApiError(
        429,
        f"the budget of {kind} per minute of the key {key.name!r} is used up{less}; ask again in "
        f"{math.ceil(wait)} s",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(math.ceil(wait))},
    )
