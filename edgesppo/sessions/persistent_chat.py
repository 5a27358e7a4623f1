"""Owns a chat that is kept on disk as it goes: its turns in a session, its KV state beside it.

The turns are the chat; the state only saves time. Whatever is wrong with the state, it is left
out silently and the prompt is prefilled again. Knows nothing of terminals.
"""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import BadChat, EdgesppoError
from edgesppo.sessions import file, kv_snapshot
from edgesppo.sessions.kv_snapshot import Snapshot
from edgesppo.sessions.transcript import Conversation
from edgesppo.system import hardware

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.chat.chat import Chat
    from edgesppo.chat.generation import Result
    from edgesppo.engine.engine import Engine
    from edgesppo.sessions.kv_snapshot import Binding
    from edgesppo.sessions.session import Session
    from edgesppo.sessions.transcript import ModelMark, Transcript

DEFAULT_CAP = 2_000_000_000
# After a turn, the state is written if prefilling what the last one lacks would take this long,
# and this many times as long as writing did: so the disk costs at most a quarter of what it saves.
WORTH_S = 5.0
WORTH_WRITES = 4.0


@dataclass(frozen=True)
class Resumed:
    """What came back of a chat.

    `n_tokens` of its prompt are in the KV cache again, which saved `saved_s` seconds: their
    prefill at the rate measured when they were saved, less what restoring took; None where no
    rate is known. `other_model` names the model that gave the last answer if it was another one.
    """

    n_turns: int
    n_tokens: int
    saved_s: float | None
    other_model: str | None


class PersistentChat:
    """A chat that goes on in a session; a context manager, `close()` lets go of the session.

        with loaded.keep(sessions.open("rome")) as saved:
            saved.chat.ask("...")
            saved.record()

    Call `record()` after whatever may have changed the chat: a turn, undo, clear, other settings.
    When it returns, that is on the disk. `resumed` says what came back, None for a new chat.
    The states of all chats in the folder take `snapshots` bytes at most; 0 writes none.
    """

    def __init__(
        self,
        chat: Chat,
        held: Session,
        engine: Engine,
        by: ModelMark,
        binding: Binding,
        *,
        snapshots: int = DEFAULT_CAP,
    ) -> None:
        self.chat = chat
        self.session = held
        self.snapshots = snapshots
        self._engine = engine
        self._by = by
        self._binding = binding
        self._measured: Result | None = None
        self._prefill = (0, 0.0)  # the longest: tokens and seconds
        self._on_disk: list[int] = []  # the ids whose state is written
        self._write_s = 0.0  # what writing it took
        self.resumed = self._resume(held.transcript) if held.transcript else None

    def record(self) -> None:
        """Put on disk what changed; the KV state, too, when that is worth it.

        Raises OutputError where the turns could not be written; the next call tries again.
        """
        self.session.record(conversation(self.chat, self._by))
        self._measure()
        if self._unsaved_s() > max(WORTH_S, WORTH_WRITES * self._write_s):
            self._save_state()

    def save(self) -> None:
        """Put everything on disk, the KV state included. Raises OutputError."""
        self.record()
        if self.chat.messages:
            self._save_state()
        else:
            self.session.delete_state()

    def close(self) -> None:
        """Put everything on disk, the KV state included, and let go; harmless when repeated."""
        if self.session.closed:
            return
        try:
            self.save()
        finally:
            self.session.close()

    def __enter__(self) -> PersistentChat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resume(self, before: Transcript) -> Resumed:
        started = time.perf_counter()
        held = restore(self.chat, self.session.state_path, self._engine, self._binding)
        n_tokens = 0
        saved_s = None
        if held is not None:
            self._on_disk = list(held.ids)
            self._prefill = held.prefill
            n_tokens = self._engine.count_cached(self.chat._history_ids())
            if rate := self._rate():
                saved_s = max(0.0, n_tokens / rate - (time.perf_counter() - started))
        same = before.by.fingerprint == self._by.fingerprint
        other = None if same else before.by.name
        return Resumed(len(before.turns), n_tokens, saved_s, other)

    def _measure(self) -> None:
        """Remember the longest prefill: it comes closest to that of a whole chat."""
        last = self.chat.last if self.chat.answered else None
        if last is None or last is self._measured:
            return
        self._measured = last
        tokens = last.usage.prompt_tokens - last.usage.cached_tokens
        if last.timings.prefill_tps > 0 and tokens >= self._prefill[0]:
            self._prefill = (tokens, tokens / last.timings.prefill_tps)

    def _rate(self) -> float:
        """Tokens per second of prefill, as measured; 0 where nothing was."""
        tokens, seconds = self._prefill
        return tokens / seconds if seconds > 0 else 0.0

    def _unsaved_s(self) -> float:
        """How long it would take to prefill what is held now and not in the written state."""
        rate = self._rate()
        if not rate or not self.chat.answered or self.snapshots <= 0:
            return 0.0
        usage = self.chat.last.usage
        bound = (usage.prompt_tokens + usage.completion_tokens) / rate
        if bound <= WORTH_S:
            return 0.0  # without counting further
        with suppress(EdgesppoError):
            return self._unsaved(self.chat._history_ids()) / rate
        return 0.0

    def _unsaved(self, ids: list[int]) -> int:
        pairs = enumerate(zip(self._on_disk, ids, strict=False))
        shorter = min(len(self._on_disk), len(ids))
        written = next((n for n, (old, new) in pairs if old != new), shorter)
        return self._engine.count_cached(ids) - written

    def _save_state(self) -> None:
        """Write the state if it holds more than the written one, the cap and memory allow it."""
        started = time.perf_counter()
        # The model may be closed, the disk full: the turns are safe, and this only saves time.
        with suppress(EdgesppoError, OSError, MemoryError):
            ids = self.chat._history_ids()
            if self._unsaved(ids) <= 0:
                return
            held = self._engine.state(ids, room(self.snapshots))
            if held is None:
                return
            found = Snapshot(held[0], held[1], self._prefill)
            kv_snapshot.write(self.session.state_path, self._binding, found, self.session.files)
            self._on_disk = held[0]
            self._write_s = time.perf_counter() - started
            kv_snapshot.prune(self.session.path.parent, self.snapshots)


def conversation(chat: Chat, by: ModelMark) -> Conversation:
    """What a chat is now, to be recorded. Raises ChatInUse while it is answering elsewhere."""
    chat._settle()
    # As JSON gives them back, so that what is recorded can be told from what changed.
    sampling = json.loads(json.dumps(dataclasses.asdict(chat.params)))
    return Conversation(by, chat.system, sampling, tuple(chat.messages), chat.left_out)


def room(cap: int) -> int:
    """The most bytes of a state that the cap and half of the free memory allow."""
    available = hardware.available_memory()
    return cap if available is None else min(cap, available // 2)


def restore(chat: Chat, path: Path, engine: Engine, binding: Binding) -> Snapshot | None:
    """Put a chat's KV state back; None when there is none that fits."""
    if not chat.messages:
        return None
    held = kv_snapshot.read(path, binding, room(kv_snapshot.MAX_BYTES))
    if held is None or not engine.restore(held.ids, held.cells):
        return None
    return held


def save(chat: Chat, path: Path, engine: Engine, by: ModelMark, binding: Binding, cap: int) -> None:
    """Write a chat to a file of its own, its KV state beside it. Raises OutputError, Closed.

    Both appear only when whole. Nothing is written where the model is closed.
    """
    chat._settle()
    ids = chat._history_ids()
    held = engine.state(ids, room(cap)) if chat.messages else None
    file.replace(path, conversation(chat, by))
    if held is None:
        return
    with suppress(OSError):
        kv_snapshot.write(file.state_path(path), binding, Snapshot(*held))
        kv_snapshot.prune(path.parent, cap)


def read(path: Path) -> Transcript:
    """A chat's file, as it is. Raises BadChat, saying what is wrong.

    A torn last line is left out: it was never said to be on the disk. Sampling parameters that
    make no sense are left out with a warning.
    """
    try:
        data = file.read(path)
    except OSError as error:
        raise BadChat(f"{path}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise BadChat(f"{path}: cannot be read: there is no such file, or it is empty")
    transcript, (end, _) = file.understand(data)
    if transcript is None:
        raise BadChat(f"{path}: not a saved chat, or damaged from its first line on")
    if end < len(data) and not file.is_torn(data, end):
        raise BadChat(f"{path}: damaged after turn {len(transcript.turns)}")
    for complaint in transcript.drop_senseless():
        warnings.warn(f"{path}: goes on without a setting: {complaint}", stacklevel=4)
    return transcript
