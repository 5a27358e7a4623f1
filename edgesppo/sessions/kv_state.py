"""The KV state of a saved chat: restoring it, and writing it where that saves enough time.

The state only saves a prefill. If anything is wrong with it, or it cannot be written, the prompt
is prefilled again.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from edgesppo.chat.dialogue import dialogue
from edgesppo.engine.kv_cache import common_prefix
from edgesppo.errors import EdgesppoError
from edgesppo.sessions import kv_snapshot
from edgesppo.sessions.kv_snapshot import Snapshot
from edgesppo.system import hardware
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgesppo.chat.chat import Chat
    from edgesppo.chat.result import Result
    from edgesppo.engine.engine import Engine
    from edgesppo.sessions.model_identity import ModelIdentity
    from edgesppo.sessions.session import Session

DEFAULT_CAP = 2_000_000_000  # bytes of the KV states in a folder
# After a turn, the state is written if prefilling what the written one lacks would take more than
# this many seconds, and this many times as long as writing it: so writing takes at most a quarter
# of the time that it saves.
WORTH_S = 5.0
WORTH_WRITES = 4.0
SLOW_BYTES = 100_000_000  # writing more takes a time that is noticed


class KvState:
    """The KV state of a chat beside its session's file, and how much of it is on disk.

    `cap` is the most bytes that the states of all chats in the folder may take; 0 writes none.
    """

    def __init__(self, chat: Chat, session: Session, identity: ModelIdentity, cap: int) -> None:
        self._chat = chat
        self._session = session
        self._identity = identity
        self._engine = identity.engine
        self._cap = cap
        self._measured: Result | None = None
        self._prefill = (0, 0.0)  # the longest one: tokens and seconds
        self._on_disk: list[int] = []  # the ids whose state is written
        self._write_s = 0.0  # seconds that writing it took

    def restore(self) -> tuple[int | None, float | None]:
        """Restore what is on disk.

        Returns how many tokens of the prompt are in the KV cache again, and the seconds that this
        saved, as in `Resumed`.
        """
        if not self._chat.messages:
            return 0, None
        started = time.perf_counter()
        snapshot = restore(self._chat, self._session.state_path, self._identity)
        n_tokens = dialogue(self._chat).n_cached()
        if snapshot is None:
            return n_tokens, None
        self._on_disk = list(snapshot.ids)
        self._prefill = snapshot.prefill
        rate = self._rate()
        spent = time.perf_counter() - started
        return n_tokens, max(0.0, n_tokens / rate - spent) if rate and n_tokens else None

    def why_unusable(self) -> str:
        """Why nothing was restored, for people."""
        if self._on_disk:
            return "turns were removed since its KV cache was saved, or no longer fit the context"
        return kv_snapshot.why_unusable(self._session.state_path, self._identity.binding)

    def measure(self) -> None:
        """Remember the longest prefill, as its rate is the closest to that of a whole chat."""
        last = self._chat.last if self._chat.answered else None
        if last is None or last is self._measured:
            return
        self._measured = last
        tokens = last.usage.prompt_tokens - last.usage.cached_tokens
        if last.timings.prefill_tps > 0 and tokens >= self._prefill[0]:
            self._prefill = (tokens, tokens / last.timings.prefill_tps)

    def _rate(self) -> float:
        """Tokens per second of the longest prefill; 0 if there was none."""
        tokens, seconds = self._prefill
        return tokens / seconds if seconds > 0 else 0.0

    def is_worth_writing(self) -> bool:
        """Whether prefilling what the written state lacks would take much longer than writing."""
        return self._unsaved_s() > max(WORTH_S, WORTH_WRITES * self._write_s)

    def _unsaved_s(self) -> float:
        """The seconds to prefill what is in the KV cache and not in the written state."""
        rate = self._rate()
        if not rate or not self._chat.answered or self._cap <= 0:
            return 0.0
        usage = self._chat.last.usage
        bound = (usage.prompt_tokens + usage.completion_tokens) / rate
        if bound <= WORTH_S:
            return 0.0  # without counting the tokens
        with suppress(EdgesppoError):
            return self._n_unsaved(dialogue(self._chat).history_ids()) / rate
        return 0.0

    def _n_unsaved(self, ids: list[int]) -> int:
        """The number of these tokens that are in the KV cache and not in the written state."""
        return self._engine.count_cached(ids) - n_resumable(self._on_disk, ids, self._engine)

    def write(self, on_slow: Callable[[int], None] | None = None) -> None:
        """Write the state if it has more than the written one, and cap and memory allow it.

        One that is of no use any more, as after undo, is deleted. `on_slow` is called with the
        number of bytes before a write that takes a noticeable time.
        """
        started = time.perf_counter()
        # The model may be closed or the disk full: the turns are safe, and this only saves time.
        with suppress(EdgesppoError, OSError, MemoryError):
            ids = dialogue(self._chat).history_ids()
            if self._on_disk and not n_resumable(self._on_disk, ids, self._engine):
                self._session.delete_state()
                self._on_disk = []
            if self._n_unsaved(ids) <= 0:
                return
            with shielded():
                state = self._engine.state(ids, max_state_bytes(self._cap))
            if state is None or not n_resumable(state[0], ids, self._engine):
                return
            snapshot = Snapshot(state[0], state[1], self._prefill)
            if on_slow is not None and snapshot.n_bytes > SLOW_BYTES:
                on_slow(snapshot.n_bytes)
            path, binding = self._session.state_path, self._identity.binding
            kv_snapshot.write(path, binding, snapshot, self._session.files)
            self._on_disk = state[0]
            self._write_s = time.perf_counter() - started
            kv_snapshot.prune(path.parent, self._cap)


def n_resumable(held: Sequence[int], ids: Sequence[int], engine: Engine) -> int:
    """How many tokens of `ids` need no prefill after a state of the tokens `held` is restored.

    Of layers with a sliding window it has the cells of the last window only, and cannot go back.
    """
    n = common_prefix(held, ids)
    return n if n == len(held) or len(held) < engine.model.weights.n_swa else 0


def max_state_bytes(cap: int) -> int:
    """The largest KV state that the cap and half of the free memory allow, in bytes."""
    available = hardware.available_memory()
    return cap if available is None else min(cap, available // 2)


def restore(chat: Chat, path: Path, identity: ModelIdentity) -> Snapshot | None:
    """Restore a chat's KV state from a file; None if there is none that can be used."""
    if not chat.messages:
        return None
    limit = max_state_bytes(kv_snapshot.MAX_BYTES)
    snapshot = kv_snapshot.read(path, identity.binding, limit)
    if snapshot is None or not identity.engine.restore(snapshot.ids, snapshot.cells):
        return None
    return snapshot
