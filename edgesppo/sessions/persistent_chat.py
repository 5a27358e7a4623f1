"""A chat that saves itself: its turns in a session's file, its KV state beside it.

The turns are the chat, the state only saves time. If anything is wrong with the state, the prompt
is prefilled again.
"""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.chat.dialogue import dialogue
from edgesppo.chat.messages import split_system
from edgesppo.errors import BadChat, EdgesppoError
from edgesppo.sessions import file, kv_snapshot
from edgesppo.sessions.kv_snapshot import Snapshot
from edgesppo.sessions.transcript import Conversation
from edgesppo.system import hardware

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.chat.chat import Chat
    from edgesppo.chat.messages import Message
    from edgesppo.chat.result import Result
    from edgesppo.sessions.model_identity import ModelIdentity
    from edgesppo.sessions.session import Session
    from edgesppo.sessions.transcript import ModelMark, Transcript

DEFAULT_CAP = 2_000_000_000  # bytes of the KV states in a folder
# After a turn, the state is written if prefilling what the written one lacks would take more than
# this many seconds, and this many times as long as writing it: so writing takes at most a quarter
# of the time that it saves.
WORTH_S = 5.0
WORTH_WRITES = 4.0


@dataclass(frozen=True)
class Resumed:
    """What was restored of a saved chat.

    Attributes:
        n_turns: The number of turns.
        n_tokens: The tokens of its prompt that are in the KV cache again.
        saved_s: The seconds that this saved: their prefill at the rate measured when they were
            saved, less the time to restore them; None if no rate is known.
        other_model: The name of the model that gave the last answer, if it was another one.
        why_nothing: Why no tokens were restored; None if some were, or the chat has no turns.
    """

    n_turns: int
    n_tokens: int
    saved_s: float | None
    other_model: str | None
    why_nothing: str | None = None


class PersistentChat:
    """A chat that is saved in a session; create it with `LoadedModel.keep`.

        with loaded.keep(sessions.open("rome")) as saved:
            saved.ask("...")  # on disk before it is answered
            saved.chat.ask("...")
            saved.record()

    A context manager: leaving it saves everything and closes the session. Call `record()` after
    anything that may have changed the chat: a turn, undo, clear, other settings. When it returns,
    the change is on disk.

    Attributes:
        chat: The chat.
        session: The session.
        snapshots: The most bytes that the KV states of all chats in the folder may take; 0 writes
            none.
        resumed: What was restored of the session's chat; None for a new one.
    """

    def __init__(
        self,
        chat: Chat,
        session: Session,
        identity: ModelIdentity,
        *,
        snapshots: int = DEFAULT_CAP,
    ) -> None:
        self.chat = chat
        self.session = session
        self.snapshots = snapshots
        self._identity = identity
        self._by = identity.mark  # now, as the model may be closed before the chat
        self._engine = identity.engine
        self._measured: Result | None = None
        self._prefill = (0, 0.0)  # the longest one: tokens and seconds
        self._on_disk: list[int] = []  # the ids whose KV state is written
        self._write_s = 0.0  # seconds that writing it took
        self._asked = session.transcript.asked if session.transcript else None
        self._before_asked = self._end()
        self.resumed = self._resume(session.transcript) if session.transcript else None

    @property
    def asked(self) -> str | None:
        """A question that was sent and never answered, as after a crash; None if there is none."""
        (n, last), (n_before, last_before) = self._end(), self._before_asked
        if n != n_before or last is not last_before:  # it has its answer
            self._asked = None
        return self._asked

    def _end(self) -> tuple[int, Message | None]:
        """The number of messages, and the last of them: an equal answer is another object."""
        messages = self.chat.messages
        return len(messages), messages[-1] if messages else None

    def ask(self, question: str) -> None:
        """Write a question to disk before it is answered. Raises OutputError."""
        self._asked, self._before_asked = question, self._end()
        self.record()

    def withdraw(self) -> None:
        """Forget the question of `ask`: it gets no answer. Raises OutputError."""
        self._asked = None
        self.record()

    def record(self) -> None:
        """Write what changed to disk, and the KV state if that saves enough time.

        Raises OutputError if the turns could not be written; the next call tries again.
        """
        self.session.record(conversation(self.chat, self._by, self.asked))
        self._measure()
        if self._unsaved_s() > max(WORTH_S, WORTH_WRITES * self._write_s):
            self._save_state()

    def save(self) -> None:
        """Write everything to disk, including the KV state. Raises OutputError."""
        self.record()
        if self.chat.messages:
            self._save_state()
        else:
            self.session.delete_state()

    def close(self) -> None:
        """Write everything to disk and close the session; harmless when repeated.

        Raises OutputError; the session is closed nevertheless.
        """
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

    def _resume(self, saved: Transcript) -> Resumed:
        """Restore the KV state, and tell what was restored."""
        started = time.perf_counter()
        snapshot = restore(self.chat, self.session.state_path, self._identity)
        n_tokens = 0
        saved_s = None
        if snapshot is not None:
            self._on_disk = list(snapshot.ids)
            self._prefill = snapshot.prefill
            n_tokens = self._engine.count_cached(dialogue(self.chat).history_ids())
            if rate := self._rate():
                saved_s = max(0.0, n_tokens / rate - (time.perf_counter() - started))
        is_same = saved.by.fingerprint == self._by.fingerprint
        other_model = None if is_same else saved.by.name
        why_nothing = None
        if self.chat.messages and not n_tokens:
            path, binding = self.session.state_path, self._identity.binding
            why_nothing = kv_snapshot.why_unusable(path, binding)
        return Resumed(len(saved.turns), n_tokens, saved_s, other_model, why_nothing)

    def _measure(self) -> None:
        """Remember the longest prefill, as its rate is the closest to that of a whole chat."""
        last = self.chat.last if self.chat.answered else None
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

    def _unsaved_s(self) -> float:
        """The seconds to prefill what is in the KV cache and not in the written state."""
        rate = self._rate()
        if not rate or not self.chat.answered or self.snapshots <= 0:
            return 0.0
        usage = self.chat.last.usage
        bound = (usage.prompt_tokens + usage.completion_tokens) / rate
        if bound <= WORTH_S:
            return 0.0  # without counting the tokens
        with suppress(EdgesppoError):
            return self._unsaved(dialogue(self.chat).history_ids()) / rate
        return 0.0

    def _unsaved(self, ids: list[int]) -> int:
        """The number of these tokens that are in the KV cache and not in the written state."""
        pairs = enumerate(zip(self._on_disk, ids, strict=False))
        shorter = min(len(self._on_disk), len(ids))
        written = next((n for n, (old, new) in pairs if old != new), shorter)
        return self._engine.count_cached(ids) - written

    def _save_state(self) -> None:
        """Write the KV state if it has more than the written one, and cap and memory allow it."""
        started = time.perf_counter()
        # The model may be closed or the disk full: the turns are safe, and this only saves time.
        with suppress(EdgesppoError, OSError, MemoryError):
            ids = dialogue(self.chat).history_ids()
            if self._unsaved(ids) <= 0:
                return
            state = self._engine.state(ids, max_state_bytes(self.snapshots))
            if state is None:
                return
            snapshot = Snapshot(state[0], state[1], self._prefill)
            binding, files = self._identity.binding, self.session.files
            kv_snapshot.write(self.session.state_path, binding, snapshot, files)
            self._on_disk = state[0]
            self._write_s = time.perf_counter() - started
            kv_snapshot.prune(self.session.path.parent, self.snapshots)


def conversation(chat: Chat, by: ModelMark, asked: str | None = None) -> Conversation:
    """The present state of a chat, for `Session.record`.

    A question at the end of its messages, put there by its user, has been asked. Raises ChatInUse
    while it is answering, and UsageError if users' and assistants' messages do not alternate.
    """
    dialogue(chat).settle()
    system, messages = split_system(chat.messages, chat.system)
    if len(messages) % 2:
        asked = messages.pop().content
    # As they are after a round trip through JSON, to compare them with what is recorded.
    sampling = json.loads(json.dumps(dataclasses.asdict(chat.params)))
    return Conversation(by, system, sampling, tuple(messages), chat.left_out, asked)


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


def save(chat: Chat, path: Path, identity: ModelIdentity, cap: int) -> None:
    """Write a chat to a file, and its KV state beside it, both atomically.

    Raises OutputError, ChatInUse, and Closed if the model is closed; then nothing is written.
    """
    dialogue(chat).settle()
    ids = dialogue(chat).history_ids()
    state = identity.engine.state(ids, max_state_bytes(cap)) if chat.messages else None
    file.replace(path, conversation(chat, identity.mark))
    if state is None:
        return
    with suppress(OSError):
        kv_snapshot.write(file.state_path(path), identity.binding, Snapshot(*state))
        kv_snapshot.prune(path.parent, cap)


def read(path: Path) -> Transcript:
    """Read a saved chat without changing its file. Raises BadChat, with what is wrong.

    A torn last line is ignored: it was never reported to be on disk. Invalid sampling parameters
    are ignored with a warning.
    """
    try:
        data = file.read(path)
    except OSError as error:
        raise BadChat(f"{path}: cannot be read: {error.strerror or error}") from None
    if not data:
        raise BadChat(f"{path} is empty, expected a saved chat")
    transcript, (end, _) = file.parse(data)
    if transcript is None:
        raise BadChat(f"{path}: not a saved chat, or damaged from its first line on")
    if end < len(data) and not file.is_torn(data, end):
        raise BadChat(f"{path}: damaged after turn {len(transcript.turns)}")
    for complaint in transcript.drop_invalid_sampling():
        warnings.warn(f"{path}: ignoring an invalid setting: {complaint}", stacklevel=4)
    return transcript
