"""The state of an interactive chat: its model, the chat itself, and its session.

The model is loaded in a background thread; everything else runs in the main thread. Nothing here
writes to a terminal: what to say is returned as lines.
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesppo.chat import template
from edgesppo.chat.dialogue import dialogue
from edgesppo.errors import EdgesppoError, OutputError, UsageError
from edgesppo.interior import interior
from edgesppo.repl.model_slot import ModelSlot
from edgesppo.sampling.stages import within_vocabulary
from edgesppo.sessions import kv_state, persistent_chat
from edgesppo.system import notices
from edgesppo.system.shell import shell_word
from edgesppo.system.signals import shielded
from edgesppo.terminal.format import describe, n_tokens, resumed_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from edgesppo.chat.chat import Chat
    from edgesppo.chat.messages import Message
    from edgesppo.loaded_model import LoadedModel
    from edgesppo.repl.model_slot import ModelSource, Report
    from edgesppo.sessions.folder import Sessions
    from edgesppo.sessions.persistent_chat import PersistentChat
    from edgesppo.sessions.session import Session
    from edgesppo.sessions.transcript import Conversation


@dataclass
class Setup:
    """What an interactive chat starts with.

    source     the model to load
    find       finds the model for a name or path that the user typed
    sessions   the saved chats
    session    where the chat is saved; closed with the chat. None: the chat is not saved
    snapshots  the most bytes that the KV states of all saved chats may take
    options    system text and sampling parameters, which override those of the session
    """

    source: ModelSource
    find: Callable[[str], ModelSource]
    sessions: Sessions
    session: Session | None = None
    snapshots: int = kv_state.DEFAULT_CAP
    options: dict[str, Any] = field(default_factory=dict)


class ReplState:
    """The model, its chat and its session. `close()` saves everything and frees the model."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.model = ModelSlot(setup.source)
        self.session = setup.session
        self.notices: list[str] = []  # lines to show when the model is loaded
        self._saved: PersistentChat | None = None
        self._chat: Chat | None = None
        # Options and messages of the chat while there is no model.
        self._suspended: tuple[dict[str, Any], list[Message]] | None = None

    @property
    def loaded(self) -> LoadedModel:
        """The loaded model. Raises UsageError while there is none."""
        if self.model.loaded is None:
            raise self._no_model()
        return self.model.loaded

    @property
    def chat(self) -> Chat:
        """The chat. Raises UsageError while there is no model."""
        if self._chat is None:
            raise self._no_model()
        return self._chat

    def _no_model(self) -> UsageError:
        if self._suspended is None:
            return UsageError("the model is not loaded yet")
        return UsageError("no model is loaded; load one with /model NAME to continue the chat")

    @property
    def ready(self) -> bool:
        """Whether a model is loaded."""
        return self._chat is not None

    @property
    def name(self) -> str:
        """The name of the session; empty if the chat is not saved."""
        return self.session.name if self.session is not None else ""

    def load(
        self, *, on_progress: Callable[[], None], on_done: Callable[[BaseException | None], None]
    ) -> None:
        """Do `load_now` in a thread; see BackgroundTask for the callbacks."""
        self.model.load_in_background(self.load_now, on_progress=on_progress, on_done=on_done)

    def load_now(self, report: Report) -> None:
        """Load the model and start the chat, or resume it if the session has turns."""
        loaded = self.model.open(self.setup.source, report)
        self.notices += [describe(loaded), *_noted()]
        said = self._begin(self.session, dict(self.setup.options))
        self.notices += [*_noted(), *said]

    def _begin(self, session: Session | None, options: dict[str, Any]) -> list[str]:
        """Start or resume a chat in a session; return lines that say what was restored.

        If it fails, nothing has changed. The previous session is not closed.
        """
        set_options = {name: value for name, value in options.items() if value is not None}
        if session is None:
            self._chat = self.loaded.chat(**set_options)
            return []
        saved = self.loaded.keep(session, snapshots=self.setup.snapshots, **set_options)
        with shielded():
            self.session, self._saved, self._chat = session, saved, saved.chat
        return [] if saved.resumed is None else [resumed_line(self.name, saved.resumed)]

    @property
    def asked(self) -> str:
        """A message of an earlier run that was sent and never answered; empty if there is none."""
        return (self._saved.asked or "") if self._saved is not None else ""

    def asking(self, question: str) -> AbstractContextManager[None]:
        """Save a message while the block answers it; see `PersistentChat.asking`."""
        return nullcontext() if self._saved is None else self._saved.asking(question)

    def withdraw(self) -> None:
        """Forget the message that got no answer. Raises OutputError."""
        if self._saved is not None:
            self._saved.withdraw()

    def record(self) -> None:
        """Save what has changed. Raises OutputError, also if saving has stopped after an error."""
        if self._saved is not None:
            self._saved.record()
        elif self.session is not None:
            raise OutputError(
                f"the chat {self.name!r} is no longer saved; write it to a file with /export FILE"
            )

    def settings(self) -> dict[str, Any]:
        """The options with which to start a chat like this one."""
        return {"system": self.chat.system, **dataclasses.asdict(self.chat.params)}

    def n_tokens(self) -> int:
        """The number of tokens that the chat takes in the context."""
        return dialogue(self.chat).n_tokens()

    def size(self, text: str) -> tuple[str, int]:
        """A text's number of tokens, as text and as int; a lower bound if it cannot fit."""
        fewest = template.fewest_tokens(interior(self.loaded).engine.model, [text])
        if fewest >= self.loaded.n_ctx:
            return f"at least {n_tokens(fewest)}", fewest
        n = len(self.loaded.tokenize(text))
        return n_tokens(n), n

    def too_long(self, size: str) -> str:
        """The warning that something does not fit, and whether the context can be larger."""
        n_ctx = self.loaded.n_ctx
        return f"warning: this does not fit: {size}, but the context holds {n_ctx:,}{self.larger}"

    @property
    def larger(self) -> str:
        """How the context is made larger, in brackets; empty if it cannot be."""
        inner = interior(self.loaded)
        can_grow = inner.url is None and inner.engine.n_ctx < inner.engine.model.n_ctx_train
        return " (--n-ctx makes it larger)" if can_grow else ""

    def resume_command(self) -> str:
        """The command line that continues the chat."""
        url = interior(self.loaded).url
        if url is None:
            return "edgesppo chat --resume"
        return f"edgesppo chat --url {shell_word(url)} --session {shell_word(self.name)}"

    def switch(self, session: Session | None) -> list[str]:
        """Save this chat and switch to another or a new one; return lines to show.

        None, where this chat is not saved, is a new one that is not saved either.

        If this chat cannot be saved, the other cannot be resumed, or the switch is interrupted,
        this chat stays the current one.
        """
        before = self.session
        try:
            resumes = session is not None and session.transcript is not None
            fresh = {} if resumes else self.settings()
            self._save()
            said = self._begin(session, fresh)
        finally:
            unused = before if self.session is session else session
            if unused is not None:
                unused.close()
        return [*(session.notices if session is not None else []), *_noted(), *said]

    def save_as(self, session: Session) -> None:
        """Save a chat that was not saved so far in a new session, from now on."""
        try:
            messages, left_out = self.chat.messages, self.chat.left_out
            session.record(self._conversation())
            self._begin(session, self.settings())
        finally:
            if self.session is not session:
                session.close()
        self.chat.messages[:] = messages
        dialogue(self.chat).history.left_out = left_out

    def copy_to(self, session: Session) -> None:
        """Write a copy of the chat into a new session and close that."""
        with session:
            session.record(self._conversation())

    def _conversation(self) -> Conversation:
        mark = interior(self.loaded).identity.mark
        return persistent_chat.conversation(self.chat, mark, self.asked or None)

    def delete_session(self) -> None:
        """Delete the session with its chat, and start a new chat in a new session."""
        before = self.session
        assert before is not None, "only a saved chat can be deleted"
        fresh = self.setup.sessions.unnamed()
        with shielded():
            try:
                before.delete()
                self._begin(fresh, self.settings())
            finally:
                (before if self.session is fresh else fresh).close()

    def use_model(self, source: ModelSource, report: Report) -> list[str]:
        """Continue the chat with another model; return lines to show.

        There is memory for one model only, so the current one is closed first, and loaded again if
        the new one fails or is interrupted. If that fails, too, the chat has no model until the
        next call.
        """
        before = self.model.source
        options, messages = self._suspended or (self.settings(), list(self.chat.messages))
        self._save()  # if it fails or is interrupted, nothing has changed
        try:
            with shielded():
                self._close_model()
                self._suspended = options, messages
            return self._open(source, options, messages, report)
        except BaseException:
            with shielded():
                with suppress(EdgesppoError):
                    self._close_model()
                with suppress(EdgesppoError):  # the first error is the one to report
                    self._open(before, options, messages, report)
            raise

    def _open(
        self, source: ModelSource, options: dict[str, Any], messages: list[Message], report: Report
    ) -> list[str]:
        loaded = self.model.open(source, report)
        if self.session is not None:
            self.session.close()
            self.session = self.setup.sessions.open(self.name)
        options = within_vocabulary(options, interior(loaded).engine.model.n_vocab)
        said = self._begin(self.session, options)
        if self.session is None:  # the token ids of another model mean nothing to this one
            self.chat.messages[:] = [dataclasses.replace(message, ids=None) for message in messages]
        self._suspended = None
        return [describe(loaded), *_noted(), *said]

    def _save(self) -> None:
        """Save everything; the chat stays open. Raises OutputError."""
        if self._saved is not None:
            self._saved.save()

    def _close_model(self) -> None:
        """Close the session, which was saved, and the model."""
        if self.session is not None:
            self.session.close()
        self._chat = self._saved = None
        self.model.close()

    def close(self, on_slow: Callable[[int], None] | None = None) -> None:
        """Save everything and free the model. Raises OutputError.

        `on_slow` is called with the bytes of the KV state before writing it takes a noticeable
        time. A Ctrl-C ends that writing only.
        """
        try:
            self.model.stop_loading()
            if self._saved is not None:
                with suppress(KeyboardInterrupt):
                    self._saved.close(on_slow)
        finally:
            with suppress(KeyboardInterrupt), shielded():
                self._close_model()


def _noted() -> list[str]:
    return [f"({line})" for line in notices.take()]
