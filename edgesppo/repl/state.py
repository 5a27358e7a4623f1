"""Owns what is being talked in: the model (loading or loaded), the chat, and where it is kept.

Knows nothing of terminals. The model is loaded in a thread; all else belongs to the main thread.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgesppo.errors import EdgesppoError, OutputError, UsageError
from edgesppo.repl.background import BackgroundTask
from edgesppo.sessions import persistent_chat as saved_chats
from edgesppo.system.signals import shielded
from edgesppo.terminal.format import describe, resumed_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.api import LoadedModel
    from edgesppo.chat.chat import Chat
    from edgesppo.chat.template import Message
    from edgesppo.sessions.folder import Sessions
    from edgesppo.sessions.persistent_chat import PersistentChat
    from edgesppo.sessions.session import Session
    from edgesppo.store.locate import Found

    Report = Callable[[str, float], None]
    OpenModel = Callable[[Found, Report], LoadedModel]


@dataclass
class Setup:
    """What a chat begins with.

    `open_model` loads what was found, reporting (stage, share done); `find` finds what a person
    typed. `session` is held until the talk is closed; None keeps nothing. `options` are the
    system text and sampling parameters that were given, which go before those of the session.
    """

    found: Found
    open_model: OpenModel
    find: Callable[[str], Found]
    sessions: Sessions
    session: Session | None = None
    snapshots: int = saved_chats.DEFAULT_CAP
    options: dict[str, Any] = field(default_factory=dict)


class ReplState:
    """The model, its chat and its session. `close()` puts everything on the disk and frees it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.found = setup.found
        self.session = setup.session
        self.loading: BackgroundTask[None] | None = None
        self.abandoned = False  # a thread is still in native code, and will be as we end
        self.news: list[str] = []  # what is to be said of the model and the chat once it is there
        self._loaded: LoadedModel | None = None
        self._saved: PersistentChat | None = None
        self._chat: Chat | None = None
        self._left: tuple[dict[str, Any], list[Message]] | None = None  # of a chat without a model

    @property
    def loaded(self) -> LoadedModel:
        """The model. UsageError while there is none."""
        if self._loaded is None:
            raise self._no_model()
        return self._loaded

    @property
    def chat(self) -> Chat:
        """The chat. UsageError while there is no model."""
        if self._chat is None:
            raise self._no_model()
        return self._chat

    def _no_model(self) -> UsageError:
        if self._left is None:
            return UsageError("the model is not loaded yet")
        return UsageError("there is no model any more; /model NAME loads one, and the chat goes on")

    @property
    def ready(self) -> bool:
        """Whether there is a model to talk to."""
        return self._chat is not None

    @property
    def name(self) -> str:
        """The session's name; empty where nothing is kept."""
        return self.session.name if self.session is not None else ""

    def load(
        self, *, moved: Callable[[], None], ended: Callable[[BaseException | None], None]
    ) -> None:
        """Begin to load the model in a thread; see Loading."""
        with shielded():  # or nobody would know of the thread
            self.loading = BackgroundTask(self.load_now, moved=moved, ended=ended)

    def load_now(self, report: Report) -> None:
        """Load the model and begin the chat, or go on with it where it was."""
        self._loaded = self.setup.open_model(self.found, report)
        self.news.append(describe(self._loaded))
        self.news += self._begin(self.session, dict(self.setup.options))

    def _begin(self, session: Session | None, options: dict[str, Any]) -> list[str]:
        """Begin the chat, or go on with it where it was; what came back, in words.

        Where that fails, nothing has changed. The session before it is not closed.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if session is None:
            self._chat = self.loaded.chat(**given)
            return []
        kept = self.loaded.keep(session, snapshots=self.setup.snapshots, **given)
        with shielded():
            self.session, self._saved, self._chat = session, kept, kept.chat
        return [] if kept.resumed is None else [resumed_line(self.name, kept.resumed)]

    def record(self) -> None:
        """Put on the disk what changed. Raises OutputError, also where nobody keeps the chat."""
        if self._saved is not None:
            self._saved.record()
        elif self.session is not None:
            raise OutputError(f"the chat {self.name!r} is no longer saved; /export FILE writes it")

    def settings(self) -> dict[str, Any]:
        """The options that would begin a chat like this one."""
        return {"system": self.chat.system, **dataclasses.asdict(self.chat.params)}

    def n_tokens(self) -> int:
        """How many tokens of the context the chat takes."""
        return len(self.chat.history_ids()) if self.chat.messages or self.chat.system else 0

    def switch(self, session: Session) -> list[str]:
        """Go on with another chat, or a new one; this one is put on the disk. What to say of it.

        Where that one cannot be had, or this one not be put on the disk, this one goes on; so it
        does when it is interrupted.
        """
        before = self.session
        try:
            fresh = {} if session.transcript is not None else {"system": self.chat.system}
            self._save()
            said = self._begin(session, fresh)
        finally:
            # Of the two, the one that is not talked in is let go of.
            left = before if self.session is session else session
            if left is not None:
                left.close()
        return [*session.notices, *said]

    def keep_as(self, session: Session) -> None:
        """Keep the chat, which nobody kept so far, in a new session."""
        try:
            messages, left_out = self.chat.messages, self.chat.left_out
            session.record(saved_chats.conversation(self.chat, self.loaded.mark))
            self._begin(session, self.settings())
        finally:
            if self.session is not session:
                session.close()
        self.chat.messages[:], self.chat.left_out = messages, left_out

    def copy_to(self, session: Session) -> None:
        """Write the chat as it is now into a new session, and let go of that."""
        with session:
            session.record(saved_chats.conversation(self.chat, self.loaded.mark))

    def forget_session(self) -> None:
        """Delete the session; the chat that is in it goes with it, and a new one begins."""
        before = self.session
        assert before is not None, "somebody asked for a session to be deleted"
        fresh = self.setup.sessions.unnamed()
        with shielded():
            try:
                before.delete()
                self._begin(fresh, self.settings())
            finally:
                (before if self.session is fresh else fresh).close()

    def use_model(self, found: Found, report: Report) -> list[str]:
        """Go on with another model. There is memory for one: this one goes first, and comes back
        if that fails. Ctrl-C gives the new one up, and waits for the old one. Where that fails,
        too, the chat waits for a third.
        """
        before = self.found
        options, messages = self._left or (self.settings(), list(self.chat.messages))
        self._save()  # where that fails, or is interrupted, all is as it was
        try:
            with shielded():
                self._close_model()
                self._left = options, messages
            return self._open(found, options, messages, report)
        except BaseException:
            with shielded():
                with suppress(EdgesppoError):
                    self._close_model()
                with suppress(EdgesppoError):  # why the new one failed says more
                    self._open(before, options, messages, report)
            raise

    def _open(
        self, found: Found, options: dict[str, Any], messages: list[Message], report: Report
    ) -> list[str]:
        self._loaded = self.setup.open_model(found, report)
        self.found = found
        if self.session is not None:
            self.session.close()
            self.session = self.setup.sessions.open(self.name)
        said = self._begin(self.session, options)
        if self.session is None:  # what the tokens of another model mean is unknown to this one
            self.chat.messages[:] = [dataclasses.replace(message, ids=None) for message in messages]
        self._left = None
        return [describe(self._loaded), *said]

    def _save(self) -> None:
        """Put everything on the disk, and go on. Raises OutputError."""
        if self._saved is not None:
            self._saved.save()

    def _leave_chat(self) -> None:
        saved, self._saved = self._saved, None
        if saved is not None:
            saved.close()
        elif self.session is not None:
            self.session.close()

    def _close_model(self) -> None:
        self._leave_chat()
        loaded, self._loaded, self._chat = self._loaded, None, None
        if loaded is not None:
            loaded.close()

    def close(self) -> None:
        """Put everything on the disk and free the model. Raises OutputError."""
        if self.loading is not None and not self.loading.done:
            with suppress(EdgesppoError):
                self.abandoned = not self.loading.give_up()
        try:
            self._close_model()
        finally:
            if self.session is not None:
                self.session.close()
