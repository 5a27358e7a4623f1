"""A chat that saves itself: its turns in a session's file, its KV state beside it."""

from __future__ import annotations

import dataclasses
import json
import warnings
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.chat.dialogue import dialogue
from edgesppo.chat.messages import split_system
from edgesppo.errors import BadChat, EdgesppoError, OutputError
from edgesppo.sessions import file, kv_snapshot
from edgesppo.sessions.kv_snapshot import Snapshot
from edgesppo.sessions.kv_state import DEFAULT_CAP, KvState, max_state_bytes, n_resumable
from edgesppo.sessions.transcript import Conversation
from edgesppo.system.signals import shielded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from edgesppo.chat.chat import Chat
    from edgesppo.chat.messages import Message
    from edgesppo.sessions.model_identity import ModelIdentity
    from edgesppo.sessions.session import Session
    from edgesppo.sessions.transcript import ModelMark, Transcript


@dataclass(frozen=True)
class Resumed:
    """What was restored of a saved chat.

    Attributes:
        n_turns: The number of turns.
        n_tokens: The tokens of its prompt that are in the KV cache again; None if unknown, as a
            server has that.
        saved_s: The seconds that this saved: their prefill at the rate measured when they were
            saved, less the time to restore them; None if no rate is known.
        other_model: What the last answer was by, if it was another model: its name, and its file
            or server if the model here has the same name.
        why_nothing: Why no tokens were restored; None if some were, or the chat has no turns.
    """

    n_turns: int
    n_tokens: int | None
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
        self._by = identity.mark  # now, as the model may be closed before the chat
        self._state = KvState(chat, session, identity, snapshots)
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

    @contextmanager
    def asking(self, question: str) -> Iterator[None]:
        """Save a question before the block answers it, and forget it again if it gets no answer.

        A question that was unanswered before is then so again. After a signal the question stays.
        Answering needs no disk: if the question cannot be saved, the next `record` says so.
        """
        before = self.asked
        with suppress(OutputError):
            self.ask(question)
        try:
            yield
        except EdgesppoError:
            self._ask_again(before)
            raise
        self._ask_again(before)

    def _ask_again(self, before: str | None) -> None:
        """Put back what was asked before, unless there is an answer by now."""
        if self.asked is not None:
            self._asked = before
            with suppress(OutputError):
                self.record()

    def withdraw(self) -> None:
        """Forget the question of `ask`: it gets no answer. Raises OutputError."""
        self._asked = None
        self.record()

    def record(self) -> None:
        """Write what changed to disk, and the KV state if that saves enough time.

        Raises OutputError if the turns could not be written; the next call tries again. A Ctrl-C
        ends the writing of the KV state only.
        """
        self._record_turns()
        if self._state.is_worth_writing():
            self._state.write()

    def _record_turns(self) -> None:
        with shielded():
            self.session.record(conversation(self.chat, self._by, self.asked))
            self._state.measure()

    def save(self, on_slow: Callable[[int], None] | None = None) -> None:
        """Write everything to disk, including the KV state. Raises OutputError.

        `on_slow` is called with the bytes of the KV state before a write that takes a noticeable
        time, which a Ctrl-C ends.
        """
        self._record_turns()
        if self.chat.messages:
            self._state.write(on_slow)
        else:
            self.session.delete_state()

    def close(self, on_slow: Callable[[int], None] | None = None) -> None:
        """Write everything to disk and close the session; harmless when repeated.

        `on_slow` is that of `save`. Raises OutputError; the session is closed nevertheless.
        """
        if self.session.closed:
            return
        try:
            self.save(on_slow)
        finally:
            with shielded():
                self.session.touch()
                self.session.close()

    def __enter__(self) -> PersistentChat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _resume(self, saved: Transcript) -> Resumed:
        """Restore the KV state, and tell what was restored."""
        n_tokens, saved_s = self._state.restore()
        is_same = saved.by.fingerprint == self._by.fingerprint
        by = (
            saved.by.name
            if saved.by.name != self._by.name
            else f"{saved.by.name} at {saved.by.path}"
        )
        other_model = None if is_same else by
        is_lost = self.chat.messages and n_tokens == 0
        why_nothing = self._state.why_unusable() if is_lost else None
        return Resumed(len(saved.turns), n_tokens, saved_s, other_model, why_nothing)


def conversation(chat: Chat, by: ModelMark, asked: str | None = None) -> Conversation:
    """The present state of a chat, for `Session.record`.

    A question at the end of its messages, put there by its user, has been asked. Raises ChatInUse
    while it is answering, and UsageError if users' and assistants' messages do not alternate.
    """
    dialogue(chat).settle()
    return _conversation(chat, chat.messages, by, asked)


def _conversation(
    chat: Chat, messages: Iterable[Message], by: ModelMark, asked: str | None = None
) -> Conversation:
    """The state of a chat with these messages."""
    system, messages = split_system(messages, chat.system)
    if len(messages) % 2:
        asked = messages.pop().content
    # As they are after a round trip through JSON, to compare them with what is recorded.
    sampling = json.loads(json.dumps(dataclasses.asdict(chat.params)))
    left_out, overflow = chat.left_out, chat.overflow
    return Conversation(by, system, sampling, tuple(messages), left_out, asked, overflow)


def save(chat: Chat, path: Path, identity: ModelIdentity, cap: int) -> None:
    """Write a chat to a file, and its KV state beside it, both atomically.

    Raises OutputError, ChatInUse, and Closed if the model is closed; then nothing is written.
    """
    messages, ids = dialogue(chat).so_far(), dialogue(chat).history_ids()
    has_state = chat.messages and not chat.busy
    state = identity.engine.state(ids, max_state_bytes(cap)) if has_state else None
    file.replace(path, _conversation(chat, messages, identity.mark))
    if state is None or not n_resumable(state[0], ids, identity.engine):
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
