"""Ctrl-C while no server answers: the workers are waited for together, not one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from edgesppo.hub import parallel_download

if TYPE_CHECKING:
    import threading


class _Blocked:
    """A thread that does not end; waiting for it takes the clock's time."""

    now = 0.0

    def join(self, timeout: float) -> None:
        _Blocked.now += timeout


def test_blocked_workers_share_one_wait_of_less_than_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel_download.time, "monotonic", lambda: _Blocked.now)
    workers = [cast("threading.Thread", _Blocked()) for _ in range(parallel_download.WORKERS)]
    parallel_download.join_all(workers)
    assert _Blocked.now == pytest.approx(0.8)
