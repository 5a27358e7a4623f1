"""`LoadedModel`: a model in memory, with all that a program asks of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from typing_extensions import Unpack

from edgesppo.chat import messages as chat_messages
from edgesppo.chat import tokens
from edgesppo.chat.chat import Chat
from edgesppo.chat.choices import Overflow
from edgesppo.chat.dialogue import dialogue
from edgesppo.chat.messages import MessageLike, MessageList
from edgesppo.chat.options import ChatOptions
from edgesppo.chat.questions import Questions
from edgesppo.chat.result import TokenLogprob
from edgesppo.chat.scoring import Scorer
from edgesppo.errors import ChatNotFound, Closed, UsageError
from edgesppo.gguf.file_types import file_type
from edgesppo.interior import Interior
from edgesppo.planning.run_config import RunConfig
from edgesppo.sampling import options
from edgesppo.sampling.options import SamplingOptions
from edgesppo.sampling.params import MAX_LOGPROBS
from edgesppo.sampling.stages import within_vocabulary
from edgesppo.sessions import kv_state, persistent_chat
from edgesppo.sessions.file import state_path
from edgesppo.sessions.persistent_chat import PersistentChat
from edgesppo.sessions.session import Session
from edgesppo.sessions.transcript import Transcript
from edgesppo.system import validate

_MOST_BYTES = 2**63 - 1


class LoadedModel(Questions):
    """A model in memory, ready to answer; returned by `load`.

    A context manager: leaving it calls `close()`, which frees everything. Several threads may use
    one loaded model, each with chats of its own.

    Attributes:
        name: The name of the model, from models.lock or its file.
        load_s: The seconds that loading took, without converting a checkpoint.
    """

    def __init__(self, name: str, inside: Interior, load_s: float) -> None:
        self.name = name
        self.load_s = load_s
        self._interior = inside
        self._closed = False
        engine = inside.engine
        threads = RunConfig(engine.n_threads, engine.n_threads_batch)
        self._scorer = Scorer(engine.model, threads, engine.n_ctx)

    def __repr__(self) -> str:
        summary = self._interior.engine.model.summary
        n = sum(math.prod(tensor.dims) for tensor in summary.tensors)
        size = f"{n / 1e9:,.1f}B" if n >= 1e9 else f"{n / 1e6:,.1f}M"
        closed = ", closed" if self._closed else ""
        return f"<Model {self.name} {size} {file_type(summary)}, {self.n_ctx:,} tokens{closed}>"

    @property
    def n_ctx(self) -> int:
        """The size of the context, in tokens."""
        return self._interior.engine.n_ctx

    @property
    def path(self) -> Path:
        """The GGUF file that was loaded."""
        return self._interior.engine.model.path

    def chat(
        self,
        *,
        messages: Iterable[MessageLike] = (),
        system: str | None = None,
        overflow: Overflow = "trim",
        **sampling: Unpack[SamplingOptions],
    ) -> Chat:
        """Start a conversation, or continue one that `messages` tells.

            chat = model.chat(messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "My name is Ada."},
                {"role": "assistant", "content": "Hello Ada."},
            ])
            chat.ask("What is my name?")

        Args:
            messages: Messages or dicts: the system's, if any, then user's and assistant's in turn.
                `Chat.to_dicts` returns such dicts.
            system: The system text, unless it is among the messages.
            overflow: What to do when the chat outgrows the context: "trim" leaves its oldest turns
                out of the prompt, "error" raises ContextOverflow.
            **sampling: SamplingParams that override the model's defaults, such as temperature=0.

        Raises:
            UsageError: An argument is invalid or unknown, or the last message is a user's.
            Closed: The model was closed.
        """
        self._require_open()
        options.check_names(sampling, ("messages", "system", "overflow"))
        params = self._interior.defaults.replace(**sampling)
        system, turns = chat_messages.complete_turns(messages, system)
        return Chat(self._interior.engine, params, system=system, overflow=overflow, messages=turns)

    def keep(
        self,
        session: Session,
        *,
        snapshots: int = kv_state.DEFAULT_CAP,
        **options: Unpack[ChatOptions],
    ) -> PersistentChat:
        """Start or continue the chat of a session, which is saved turn by turn.

        Args:
            session: An open session, as `Sessions.open` returns it.
            snapshots: The most bytes that the KV states of all chats in its folder may take.
            **options: Options of `chat` that override those saved in the session.

        Raises:
            UsageError: An option is invalid or unknown.
        """
        cap = validate.integer("snapshots", snapshots, 0, _MOST_BYTES)
        chat = self._resumed(session.transcript, {**options})
        return PersistentChat(chat, session, self._interior.identity, snapshots=cap)

    def save(self, chat: Chat, path: str | Path, *, snapshots: int = kv_state.DEFAULT_CAP) -> None:
        """Save a chat to a file, and its KV state beside it, in a file that ends in ".kv".

        The state only saves the prefill when the chat is resumed; it may be deleted at any time.
        An answer under way goes on; it is saved as far as it has come, without a state.

        Args:
            chat: The chat to save, of this model.
            path: The file to write or replace.
            snapshots: The most bytes that the KV states of all chats in its folder may take.

        Raises:
            OutputError: The file could not be written.
            ChatInUse: Another process has the chat of that file open. Nothing is written.
            UsageError: The chat is another model's.
            Closed: The model was closed. Nothing is written.
        """
        if dialogue(chat).engine is not self._interior.engine:
            raise UsageError(
                f"the chat is with {dialogue(chat).engine.name}, which is loaded as another model;"
                " save it with that"
            )
        cap = validate.integer("snapshots", snapshots, 0, _MOST_BYTES)
        real_path = Path(os.path.realpath(path))
        persistent_chat.save(chat, real_path, self._interior.identity, cap)

    def resume(self, path: str | Path, **options: Unpack[ChatOptions]) -> Chat:
        """Load a saved chat to continue it. The file is not changed.

        The KV state is restored if it was saved by the same model, build and settings, and is not
        damaged. Otherwise the next turn prefills the history again.

        Args:
            path: The file that `save` wrote.
            **options: Options of `chat` that override those saved with the chat.

        Raises:
            ChatNotFound: There is no such file.
            BadChat: The file cannot be read, is damaged or is not a saved chat.
            UsageError: An option is invalid or unknown.
        """
        real_path = Path(os.path.realpath(path))
        if not os.path.lexists(real_path):
            raise ChatNotFound(f"{path}: there is no such file; save(chat, path) writes one")
        chat = self._resumed(persistent_chat.read(real_path), {**options})
        kv_state.restore(chat, state_path(real_path), self._interior.identity)
        return chat

    def _resumed(self, saved: Transcript | None, given: dict[str, Any]) -> Chat:
        """A chat with the history and settings of a saved one, and with options that override."""
        if saved is None:
            return self.chat(**given)
        sampling = {name: given[name] for name in given if name not in ("system", "overflow")}
        options.check_names(sampling, ("system", "overflow"))
        chat = self.chat(**{"system": saved.system, "overflow": saved.overflow, **given})
        kept = within_vocabulary(saved.sampling, self._interior.engine.model.n_vocab)
        chat.params = self._interior.defaults.replace(**{**kept, **sampling})
        chat.messages = MessageList(saved.messages(self._interior.identity.mark.fingerprint))
        dialogue(chat).history.left_out = saved.left_out(self._interior.identity.mark)
        return chat

    def tokenize(
        self, text: str | bytes | Iterable[MessageLike], *, chat: bool = False
    ) -> list[int]:
        """The token ids of plain text, or of a whole prompt.

        Args:
            text: A string, or UTF-8 bytes. Text that looks like a control token is tokenised as
                ordinary text. Or a list of messages, as `chat` takes them: the prompt that they
                make, with its control tokens.
            chat: Return the prompt that asks `text` in a new chat, with its control tokens.

        Raises:
            UsageError: The bytes are not UTF-8, the string has lone surrogates, or the messages
                are invalid.
            Closed: The model was closed.
        """
        return tokens.ids_of(self._interior.engine.model, text, chat=chat)

    def count_tokens(self, text: str | bytes | Iterable[MessageLike]) -> int:
        """The number of tokens of plain text, or of the prompt that a list of messages makes.

        A chat's own prompt is `count_tokens(chat.to_dicts())`. Raises what `tokenize` raises.
        """
        return len(self.tokenize(text))

    def detokenize(self, ids: Iterable[int]) -> str:
        """The text that token ids stand for; an incomplete character becomes U+FFFD.

        Control tokens, such as `<end_of_turn>`, stand for no text. Raises UsageError for an id
        outside the vocabulary, and Closed.
        """
        return tokens.text_of(self._interior.engine.model, ids)

    def score(
        self, text: str | bytes | Iterable[MessageLike], *, logprobs: int = 0
    ) -> list[TokenLogprob]:
        """The log-probability of every token of a text or of a list of messages.

            for scored in model.score("The sky is blue."):
                print(scored.text, scored.logprob)

        Each token is scored given `<bos>` and the tokens before it: the natural logarithm of the
        model's own probability. The tokens are those of `tokenize`, without `<bos>`; those of
        messages include the control tokens of their turns, as `chat` would give them to the model.

        Args:
            text: A text or a list of messages, as `tokenize` takes them.
            logprobs: How many of the most probable tokens to return in the place of each.

        Raises:
            UsageError: The text or the messages are invalid.
            ContextOverflow: There are more tokens than the context holds.
            Closed: The model was closed.
        """
        n_top = validate.integer("logprobs", logprobs, 0, MAX_LOGPROBS)
        ids = self.tokenize(text)
        if isinstance(text, str | bytes):
            ids = [self._interior.engine.model.bos, *ids]
        return self._scorer.score(ids, n_top)

    def close(self) -> None:
        """Free the context and the weights; harmless when repeated.

        Answers that are being generated end, and their streams raise Closed.
        """
        self._closed = True
        self._scorer.close()
        self._interior.engine.close()
        self._interior.engine.model.close()

    def _require_open(self) -> None:
        if self._closed:
            raise Closed(f"the model {self.name} was closed; load it again")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a loaded model cannot be copied or pickled; load() it in each process")

    def __enter__(self) -> LoadedModel:
        self._require_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
