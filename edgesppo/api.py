"""Owns `load()` and what it gives: a model with its engine, ready to be asked.

The one place in the library where the two roads meet: a checkpoint folder is converted on first
use, so this file (and the command line) may import edgesppo_convert, late.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from edgesppo.chat import template
from edgesppo.chat.chat import Chat
from edgesppo.chat.template import Message
from edgesppo.engine.draft_model import open_draft_model
from edgesppo.engine.engine import Engine
from edgesppo.errors import BadModelFile, UsageError
from edgesppo.gguf import gemma2
from edgesppo.llama.library import LIBRARY_VERSION, system_info
from edgesppo.llama.model import Model
from edgesppo.llama.tokenizer import as_utf8
from edgesppo.planning.run_config import is_small
from edgesppo.sampling.params import SamplingParams
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

    from edgesppo.gguf.gemma2 import Summary
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.sessions.session import Session
    from edgesppo.sessions.transcript import Transcript
    from edgesppo_convert import Progress

T = TypeVar("T")
# general.sampling.* is where a GGUF says how its model wants to be sampled.
_FILE_DEFAULTS = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "penalty_repeat",
}


class LoadedModel:
    """A model in memory, with its engine. A context manager; `close()` frees everything."""

    def __init__(
        self,
        name: str,
        model: Model,
        engine: Engine,
        defaults: SamplingParams,
        load_s: float,
        plan: MemoryPlan,
    ) -> None:
        self.name = name
        self.model = model
        self.engine = engine
        self.defaults = defaults
        self.load_s = load_s
        self.plan = plan  # what it was expected to take, in bytes

    def chat(self, *, system: str | None = None, overflow: str = "trim", **sampling: Any) -> Chat:
        """A new conversation. `sampling` as in SamplingParams: temperature, top_p, seed, ...

        `overflow` says what happens when it outgrows the context: "trim" or "error".
        """
        params = self.defaults.replace(**sampling)
        return Chat(self.engine, params, system=system, overflow=overflow)

    def keep(
        self, session: Session, *, snapshots: int = persistent_chat.DEFAULT_CAP, **options: Any
    ) -> PersistentChat:
        """Chat in a session: new, or where it was, with its KV state. `options` as for `chat`.

        What is not among the options is as the session has it: system text, sampling. See
        PersistentChat; the states of all chats in the folder take `snapshots` bytes at most.
        """
        chat = self._resumed(session.transcript, options)
        return PersistentChat(
            chat, session, self.engine, self.mark, self.binding, snapshots=snapshots
        )

    def save(
        self, chat: Chat, path: str | Path, *, snapshots: int = persistent_chat.DEFAULT_CAP
    ) -> None:
        """Write a chat to a file, its KV state beside it; states take `snapshots` bytes at most.

        Raises OutputError, ChatInUse where a process goes on with the chat of that file, and
        Closed; then nothing is written. The state's file, of the same name and ".kv", may be
        deleted at will.
        """
        place = Path(os.path.realpath(path))
        persistent_chat.save(chat, place, self.engine, self.mark, self.binding, snapshots)

    def resume(self, path: str | Path, **options: Any) -> Chat:
        """Go on with a chat from a file; `options` as for `chat`. Raises BadChat.

        What is not among the options is as it was saved. Its KV state is restored if it was made
        by this very model, build and settings; else, or when it is damaged, the next turn
        prefills the history again. The file is left as it is.
        """
        place = Path(os.path.realpath(path))
        chat = self._resumed(persistent_chat.read(place), options)
        persistent_chat.restore(chat, state_path(place), self.engine, self.binding)
        return chat

    def _resumed(self, before: Transcript | None, options: dict[str, Any]) -> Chat:
        if before is None:
            return self.chat(**options)
        chat = self.chat(**{"system": before.system, **options})
        own = {name: options[name] for name in options if name not in ("system", "overflow")}
        chat.params = self.defaults.replace(**{**before.sampling, **own})
        chat.messages = before.messages(self.mark.fingerprint)
        chat.left_out = before.left_out(self.mark)
        return chat

    @functools.cached_property
    def mark(self) -> ModelMark:
        """What a saved chat says of the model that answers in it."""
        header = self.model.summary.file_bytes - self.model.summary.data_bytes
        _ = self.model.weights  # a closed model says that it is
        self.model.file.check()
        with self.model.file.open() as file:  # another may have its name by now
            digest = fingerprint(file, max(0, header))
        path = self.model.path.absolute()
        return ModelMark(self.name, str(path), digest, self.engine.n_ctx)

    @property
    def binding(self) -> Binding:
        """What a KV state of this model, build and settings is bound to."""
        library = f"{LIBRARY_VERSION} {system_info()}"
        return Binding(self.mark.fingerprint, library, self.engine.settings)

    @overload
    def ask(
        self, text: str, *, system: str | None = None, schema: None = None, **sampling: Any
    ) -> str: ...
    @overload
    def ask(
        self, text: str, *, system: str | None = None, schema: type[T], **sampling: Any
    ) -> T: ...
    @overload
    def ask(self, text: str, *, system: str | None = None, schema: Any, **sampling: Any) -> Any: ...
    def ask(
        self, text: str, *, system: str | None = None, schema: Any = None, **sampling: Any
    ) -> Any:
        """One question, one answer; with a `schema` a value, as `Chat.ask` has it."""
        return self.chat(system=system, **sampling).ask(text, schema=schema)

    def tokenize(self, text: str | bytes, *, chat: bool = False) -> list[int]:
        """Token ids of plain text; with `chat`, of a whole user turn, ready to be answered."""
        if not chat:
            return self.model.tokenize(text)
        words = as_utf8(text).decode("utf-8")
        return template.encode(self.model, [Message("user", words)])

    def close(self) -> None:
        """Free the context and the weights; harmless when repeated."""
        self.engine.close()
        self.model.close()

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
    gpu: str | int = "auto",
    cache_type: str = "f16",
    tune: str = "turn",
    drafts: bool | str | Path = True,
    force: bool = False,
    on_load: Callable[[float], None] | None = None,
    on_convert: Callable[[Progress], None] | None = None,
    on_tune: Callable[[float], None] | None = None,
) -> LoadedModel:
    """Load a model: a name from models.lock, a GGUF file or a checkpoint folder.

    What `locate.find` gave may stand there, too. Never downloads. A checkpoint is converted to
    Q4_K_M once, into the cache folder. `n_ctx` is in tokens; `gpu` is "auto", "off" or a number
    of layers; `cache_type` is "f16", "f32" or "q8_0". What will not fit into memory is refused
    unless `force`.

    The first time that a model of more than a few megabytes is loaded on a machine, up to a minute
    is spent on finding the settings that are fastest there: `tune` says for what ("turn",
    "prefill", "decode", "memory"), "off" does without.

    With `drafts`, what probably comes next is guessed from the text so far and computed at once
    where that pays (not for models of a few megabytes); it changes no answer but by the rounding
    of larger batches. A GGUF file there is a smaller model of the same vocabulary, which guesses
    as well.

    `on_load` hears the loaded fraction, `on_tune` that of the search, `on_convert` the
    conversion's progress. A conversion does not count as a part of `load_s`.
    Raises ModelNotFound, BadModelFile, BadCheckpoint, UsageError or OutOfMemory.
    """
    started = time.perf_counter()
    listeners = {"on_load": on_load, "on_convert": on_convert, "on_tune": on_tune}
    for name, function in listeners.items():
        validate.callback(name, function)
    if not isinstance(drafts, bool | str | os.PathLike) or drafts == "":
        raise validate.invalid_value("drafts", drafts, "True, False or a model")
    found = model if isinstance(model, locate.Found) else locate.find(model)
    summary, spent = _summary(found, on_convert)
    second = None
    if not isinstance(drafts, bool):
        second, more = _summary(locate.find(drafts))
        spent += more
    wishes = LoadOptions(n_ctx, n_threads, n_seqs, gpu, cache_type, tune, force, second)
    tuning, made = choose_settings(summary, wishes, on_tune)
    with contextlib.ExitStack() as undo:
        path, repack = summary.path, tuning.repack
        weights = Model(path, gpu=gpu, repack=repack, summary=summary, progress=on_load)
        undo.callback(weights.close)
        defaults = _defaults(weights)
        guesser = None
        if second is not None:
            guesser = open_draft_model(second, weights, tuning, n_ctx=n_ctx, gpu=gpu)
            undo.callback(guesser.close)
        engine = Engine(
            weights,
            n_ctx=n_ctx,
            n_seqs=n_seqs,
            n_threads=tuning.n_threads,
            n_threads_batch=tuning.n_threads_batch,
            n_ubatch=tuning.n_ubatch,
            # Only the default cache leaves a choice: f32 forbids flash attention, q8_0 needs it.
            flash_attention=tuning.flash_attention if cache_type == "f16" else "auto",
            cache_type=cache_type,
            draft_costs=tuning.row_costs if _may_guess(summary, drafts) else None,
            draft_model=guesser,
        )
        undo.pop_all()
    seconds = time.perf_counter() - started - spent
    return LoadedModel(found.name, weights, engine, defaults, seconds, made)


def _may_guess(summary: Summary, drafts: bool | str | Path) -> bool:
    """Guesses save steps of a model whose steps take time; who names a draft model wants it."""
    return bool(drafts) and not (drafts is True and is_small(summary))


def _summary(
    found: locate.Found, on_convert: Callable[[Progress], None] | None = None
) -> tuple[Summary, float]:
    """The head of what was found; a checkpoint is converted before, in so many seconds."""
    if not found.is_checkpoint:
        return gemma2.load_summary(found.path), 0.0
    return converted.prepare(found, on_convert)


def _defaults(model: Model) -> SamplingParams:
    keys = model.summary.keys
    own = {
        name: keys[f"general.sampling.{key}"]
        for name, key in _FILE_DEFAULTS.items()
        if f"general.sampling.{key}" in keys
    }
    try:
        return SamplingParams().replace(**own)
    except UsageError as error:
        raise BadModelFile(f"{model.path}: senseless general.sampling keys: {error}") from None
