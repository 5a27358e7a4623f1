"""The public API: `load()`, and the loaded model that it returns."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from edgesppo.chat import messages as chat_messages
from edgesppo.chat import template
from edgesppo.chat.chat import Chat
from edgesppo.chat.choices import Overflow  # noqa: TC001 - for get_type_hints
from edgesppo.chat.messages import Message, MessageList
from edgesppo.engine.draft_model import open_draft_model
from edgesppo.engine.engine import Engine
from edgesppo.engine.pace import Pace
from edgesppo.errors import ChatNotFound, UsageError
from edgesppo.gguf import gemma2
from edgesppo.gguf.file_types import file_type
from edgesppo.llama.library import LIBRARY_VERSION, system_info
from edgesppo.llama.model import Model
from edgesppo.llama.tokenizer import as_utf8
from edgesppo.planning.run_config import is_small
from edgesppo.sampling import options
from edgesppo.sampling.file_defaults import file_defaults
from edgesppo.sampling.options import SamplingOptions
from edgesppo.sessions import persistent_chat
from edgesppo.sessions.file import state_path
from edgesppo.sessions.kv_snapshot import Binding, fingerprint
from edgesppo.sessions.persistent_chat import PersistentChat
from edgesppo.sessions.transcript import ModelMark
from edgesppo.store import converted, locate
from edgesppo.system import validate
from edgesppo.tuning.choose import LoadOptions, choose_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Unpack

    from edgesppo.chat.messages import MessageLike
    from edgesppo.chat.structured import JsonSchema, PydanticClass, Schema
    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.planning.run_config import CacheType, Goal, Gpu, RunConfig
    from edgesppo.sampling.params import SamplingParams
    from edgesppo.sessions.session import Session
    from edgesppo.sessions.transcript import Transcript
    from edgesppo_convert import Progress

T = TypeVar("T", bound="PydanticClass")
_MOST_BYTES = 2**63 - 1


class ChatOptions(SamplingOptions, total=False):
    """The options of a chat that is resumed: those of sampling, and the chat's own."""

    system: str | None
    overflow: Overflow


class LoadedModel:
    """A model in memory, ready to answer; returned by `load`.

    A context manager: leaving it calls `close()`, which frees everything. Several threads may use
    one loaded model, each with chats of its own.

    Attributes:
        name: The name of the model, from models.lock or its file.
        load_s: The seconds that loading took, without converting a checkpoint.
    """

    _url: str | None = None  # of the server that has loaded it, if this process has not

    def __init__(
        self,
        name: str,
        model: Model,
        engine: Engine,
        defaults: SamplingParams,
        load_s: float,
        plan: MemoryPlan | None,
    ) -> None:
        self.name = name
        self.load_s = load_s
        self._model = model
        self._engine = engine
        self._defaults = defaults  # of new chats: those of the model's file, if it has any
        self._closed = False
        self._plan = plan  # the memory that it was expected to take

    def __repr__(self) -> str:
        summary = self._model.summary
        n = sum(math.prod(tensor.dims) for tensor in summary.tensors)
        size = f"{n / 1e9:,.1f}B" if n >= 1e9 else f"{n / 1e6:,.1f}M"
        closed = ", closed" if self._closed else ""
        return f"<Model {self.name} {size} {file_type(summary)}, {self.n_ctx:,} tokens{closed}>"

    @property
    def n_ctx(self) -> int:
        """The size of the context, in tokens."""
        return self._engine.n_ctx

    @property
    def path(self) -> Path:
        """The GGUF file that was loaded."""
        return self._model.path

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
        """
        options.check_names(sampling, ("messages", "system", "overflow"))
        params = self._defaults.replace(**sampling)
        system, turns = chat_messages.complete_turns(messages, system)
        return Chat(self._engine, params, system=system, overflow=overflow, messages=turns)

    def keep(
        self,
        session: Session,
        *,
        snapshots: int = persistent_chat.DEFAULT_CAP,
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
        return PersistentChat(chat, session, self._engine, self._mark, self._binding, snapshots=cap)

    def save(
        self, chat: Chat, path: str | Path, *, snapshots: int = persistent_chat.DEFAULT_CAP
    ) -> None:
        """Save a chat to a file, and its KV state beside it, in a file that ends in ".kv".

        The state only saves the prefill when the chat is resumed; it may be deleted at any time.

        Args:
            chat: The chat to save.
            path: The file to write or replace.
            snapshots: The most bytes that the KV states of all chats in its folder may take.

        Raises:
            OutputError: The file could not be written.
            ChatInUse: Another process has the chat of that file open. Nothing is written.
            Closed: The model was closed. Nothing is written.
        """
        cap = validate.integer("snapshots", snapshots, 0, _MOST_BYTES)
        real_path = Path(os.path.realpath(path))
        persistent_chat.save(chat, real_path, self._engine, self._mark, self._binding, cap)

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
        persistent_chat.restore(chat, state_path(real_path), self._engine, self._binding)
        return chat

    def _resumed(self, saved: Transcript | None, given: dict[str, Any]) -> Chat:
        """A chat with the history and settings of a saved one, and with options that override."""
        if saved is None:
            return self.chat(**given)
        sampling = {name: given[name] for name in given if name not in ("system", "overflow")}
        options.check_names(sampling, ("system", "overflow"))
        chat = self.chat(**{"system": saved.system, **given})
        chat.params = self._defaults.replace(**{**saved.sampling, **sampling})
        chat.messages = MessageList(saved.messages(self._mark.fingerprint))
        chat.left_out = saved.left_out(self._mark)
        return chat

    @functools.cached_property
    def _mark(self) -> ModelMark:
        """The description of this model in saved chats: name, path, fingerprint and n_ctx.

        Raises Closed, or BadModelFile if the file was changed in place.
        """
        header = self._model.summary.file_bytes - self._model.summary.data_bytes
        _ = self._model.weights  # raises Closed
        self._model.file.check()
        with self._model.file.open() as file:  # its path may name another file by now
            digest = fingerprint(file, max(0, header))
        path = self._model.path.absolute()
        return ModelMark(self.name, str(path), digest, self._engine.n_ctx)

    @property
    def _binding(self) -> Binding:
        """What a saved KV state must match: this model, this build of llama.cpp, these settings."""
        library = f"{LIBRARY_VERSION} {system_info()}"
        return Binding(self._mark.fingerprint, library, self._engine.settings)

    @overload
    def ask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str: ...
    @overload
    def ask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: type[T],
        **sampling: Unpack[SamplingOptions],
    ) -> T: ...
    @overload
    def ask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: JsonSchema,
        **sampling: Unpack[SamplingOptions],
    ) -> Any: ...
    def ask(
        self,
        text: str | Iterable[MessageLike],
        *,
        system: str | None = None,
        schema: Schema | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Any:
        """Ask one question in a new chat, and wait for the whole answer.

        `text` may also be a list of messages, as `chat` takes them, that ends with the question.
        `system` is the system text. The other arguments, the result and the errors are those of
        `Chat.ask`.
        """
        options.check_names(sampling, ("system", "schema"))
        turns: list[Message] = []
        if isinstance(text, Mapping):
            raise UsageError("ask() takes a text or a list of messages, not one message: [{...}]")
        if isinstance(text, Iterable) and not isinstance(text, str | bytes):
            system, turns, text = chat_messages.question_last(text, system)
        chat = self.chat(messages=turns, system=system, **sampling)
        format_: Any = schema
        return chat.ask(text, schema=format_)

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
        if not isinstance(text, str | bytes):
            system, turns = chat_messages.split_system(text)
            first = [] if system is None else [Message("system", system)]
            if first and not turns:  # the system text goes in front of a question
                turns = [Message("user", "")]
            return template.encode(self._model, [*first, *turns], answering=False)
        if not chat:
            return self._model.tokenize(text)
        decoded = as_utf8(text).decode("utf-8")
        return template.encode(self._model, [Message("user", decoded)])

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
        tokens = validate.plain_list(ids if hasattr(ids, "tolist") else _items(ids))
        if tokens is None:
            raise UsageError(f"ids is {validate.quoted(ids)}, expected a list of token ids")
        most = self._model.n_vocab - 1
        found = [validate.integer("a token id", token, 0, most) for token in tokens]
        return self._model.detokenize(found).decode("utf-8", "replace")

    def close(self) -> None:
        """Free the context and the weights; harmless when repeated.

        Answers that are being generated end, and their streams raise Closed.
        """
        self._closed = True
        self._engine.close()
        self._model.close()

    def __enter__(self) -> LoadedModel:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


def load(
    model: str | Path | locate.Found,
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    n_seqs: int = 1,
    gpu: Gpu = "auto",
    cache_type: CacheType = "f16",
    tune: Goal = "turn",
    drafts: bool | str | Path = True,
    force: bool = False,
    on_load: Callable[[float], None] | None = None,
    on_convert: Callable[[Progress], None] | None = None,
    on_tune: Callable[[float], None] | None = None,
) -> LoadedModel:
    """Load a model to chat with. Nothing is downloaded.

        with edgesppo.load("demo") as model:
            print(model.ask("Why is the sky blue?"))

    The first time that a model of more than a few megabytes is loaded on a machine, up to a minute
    is spent on measuring which settings are fastest; the result is cached. A checkpoint is
    converted to Q4_K_M the first time, into the cache folder.

    Args:
        model: A name from models.lock, a GGUF file or a checkpoint folder; or what `locate.find`
            returned for one of them.
        n_ctx: The context in tokens; by default what the model was trained for.
        n_threads: The number of threads; by default the fastest, and one for models of a few
            megabytes.
        n_seqs: How many answers can be generated at the same time. They share the context.
        gpu: "auto" (all layers, if there is a usable GPU), "off", or a number of layers.
        cache_type: The type of the KV cache: "f16", "f32" or "q8_0".
        tune: What to measure the settings for: "turn" (a typical turn), "prefill" (long prompts),
            "decode" (long answers) or "memory" (least memory). "off" measures nothing.
        drafts: Whether to predict the next tokens from the text so far and to verify them in one
            batch where that pays; never for models of a few megabytes. This changes no answer
            except by the rounding of larger batches. A model in place of True, with the same
            vocabulary and fewer bytes, predicts as well.
        force: Load the model even if it is not expected to fit into memory.
        on_load: Called with the loaded fraction, from 0 to 1.
        on_convert: Called with the progress of a conversion.
        on_tune: Called with the fraction of the measuring that is done, from 0 to 1.

    Raises:
        ModelNotFound: There is no such model on this machine.
        BadModelFile: The GGUF file is damaged, or not a Gemma-2 model.
        BadCheckpoint: The checkpoint folder cannot be converted.
        UsageError: An argument is invalid, or the draft model has another vocabulary.
        OutOfMemory: The model does not fit into memory.
    """
    started = time.perf_counter()
    callbacks = {"on_load": on_load, "on_convert": on_convert, "on_tune": on_tune}
    for name, function in callbacks.items():
        validate.callback(name, function)
    if not isinstance(drafts, bool | str | os.PathLike) or drafts == "":
        raise validate.invalid_value("drafts", drafts, "True, False or a model")
    found = model if isinstance(model, locate.Found) else locate.find(model)
    summary, convert_s = _prepare(found, on_convert)
    draft_summary = None
    if not isinstance(drafts, bool):
        draft_summary, seconds = _prepare(locate.find(drafts))
        convert_s += seconds
    n_ctx, n_threads, n_seqs, gpu = map(validate.plain, (n_ctx, n_threads, n_seqs, gpu))
    asked = LoadOptions(n_ctx, n_threads, n_seqs, gpu, cache_type, tune, force, draft_summary)
    tuning, plan = choose_settings(summary, asked, on_tune)
    with contextlib.ExitStack() as undo:
        path, repack = summary.path, tuning.repack
        weights = Model(path, gpu=gpu, repack=repack, summary=summary, progress=on_load)
        undo.callback(weights.close)
        defaults = file_defaults(weights.path, summary.keys)
        draft_model = None
        if draft_summary is not None:
            draft_model = open_draft_model(draft_summary, weights, tuning, n_ctx=n_ctx, gpu=gpu)
            undo.callback(draft_model.close)
        engine = Engine(
            weights,
            n_ctx=n_ctx,
            n_seqs=n_seqs,
            n_threads=tuning.n_threads,
            n_threads_batch=tuning.n_threads_batch,
            n_ubatch=tuning.n_ubatch,
            # Only the f16 cache leaves a choice: f32 rules flash attention out, q8_0 needs it.
            flash_attention=tuning.flash_attention if cache_type == "f16" else "auto",
            cache_type=cache_type,
            draft_costs=tuning.row_costs if _drafts_enabled(summary, drafts) else None,
            draft_model=draft_model,
            pace=_pace(tuning, weights, fixed=n_threads is not None),
        )
        undo.pop_all()
    load_s = time.perf_counter() - started - convert_s
    return LoadedModel(found.name, weights, engine, defaults, load_s, plan)


def _items(ids: Any) -> Any:
    """The items of anything that can be iterated over, but for a text."""
    if isinstance(ids, str | bytes) or not hasattr(ids, "__iter__"):
        return ids
    return list(ids)


def _pace(tuning: RunConfig, model: Model, *, fixed: bool) -> Pace | None:
    """What adapts the number of threads; None where they do not matter or there is nothing to try.

    That is where a GPU computes, and for one thread of which no rate is known.
    """
    if model.n_gpu_layers or (tuning.n_threads == 1 and tuning.decode_tps is None):
        return None
    return Pace(tuning.n_threads, tuning.n_threads_batch, tuning.decode_tps, fixed=fixed)


def _drafts_enabled(summary: Summary, drafts: bool | str | Path) -> bool:
    """Whether to draft tokens: it pays only for larger models, unless a draft model was named."""
    return bool(drafts) and not (drafts is True and is_small(summary))


def _prepare(
    found: locate.Found, on_convert: Callable[[Progress], None] | None = None
) -> tuple[Summary, float]:
    """The header of a model file, and the seconds spent on converting a checkpoint to it."""
    if not found.is_checkpoint:
        return gemma2.load_summary(found.path), 0.0
    return converted.prepare(found, on_convert)
