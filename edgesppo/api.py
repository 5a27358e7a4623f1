"""`load()`: a model from its name or file to ready, where the store, tuning and engine meet."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgesppo.engine.draft_model import open_draft_model
from edgesppo.engine.engine import Engine
from edgesppo.engine.pace import Pace
from edgesppo.gguf import gemma2
from edgesppo.gguf.gemma2 import Summary
from edgesppo.interior import Interior
from edgesppo.llama.model import Model
from edgesppo.loaded_model import LoadedModel
from edgesppo.planning.run_config import CacheType, Goal, Gpu, RunConfig, is_small
from edgesppo.sampling.file_defaults import file_defaults
from edgesppo.sampling.params import SamplingParams
from edgesppo.sessions.model_identity import ModelIdentity
from edgesppo.store import converted, locate
from edgesppo.system import notices, validate
from edgesppo.system.conversion_progress import Progress
from edgesppo.tuning import settings_cache
from edgesppo.tuning.choose import LoadOptions, choose_settings

_told: set[Path] = set()  # the files whose notes were given out


@validate.suggests_keywords
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

    The first time that a model of 67 MB or more is loaded on a machine, a minute or two
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
            batch where that pays; never for models of less than 67 MB. This changes no answer
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
    callbacks = {"on_load": on_load, "on_convert": on_convert, "on_tune": on_tune}
    for name, function in callbacks.items():
        validate.callback(name, function)
    n_ctx, n_threads, n_seqs, gpu = map(validate.plain, (n_ctx, n_threads, n_seqs, gpu))
    asked = LoadOptions(n_ctx, n_threads, n_seqs, gpu, cache_type, tune, force)
    return _load(model, asked, drafts, on_load, on_convert, on_tune)


def _load(
    model: str | Path | locate.Found,
    asked: LoadOptions,
    drafts: bool | str | Path,
    on_load: Callable[[float], None] | None,
    on_convert: Callable[[Progress], None] | None,
    on_tune: Callable[[float], None] | None,
) -> LoadedModel:
    started = time.perf_counter()
    if not isinstance(drafts, bool | str | os.PathLike) or drafts == "":
        raise validate.invalid_value("drafts", drafts, "True, False or a model")
    found = model if isinstance(model, locate.Found) else locate.find(model)
    summary, convert_s = _prepare(found, on_convert)
    if not isinstance(drafts, bool):
        draft, seconds = _prepare(locate.find(drafts))
        asked, convert_s = replace(asked, draft=draft), convert_s + seconds
    tuning, _ = choose_settings(summary, asked, on_tune)
    draft_costs = tuning.row_costs if _drafts_enabled(summary, drafts) else None
    engine, defaults = _open(found.name, summary, tuning, asked, draft_costs, on_load)
    load_s = time.perf_counter() - started - convert_s
    _tell_notes(summary)
    inside = Interior(engine, ModelIdentity(found.name, engine), defaults)
    return LoadedModel(found.name, inside, load_s)


def _tell_notes(summary: Summary) -> None:
    """Say once what a file has that is without effect here."""
    found = gemma2.notes(summary)
    if found and summary.path not in _told:
        _told.add(summary.path)
        notices.notify(f"{summary.path.name}: {'; '.join(found)}")


def _open(
    name: str,
    summary: Summary,
    tuning: RunConfig,
    asked: LoadOptions,
    draft_costs: tuple[float, ...] | None,
    on_load: Callable[[float], None] | None,
) -> tuple[Engine, SamplingParams]:
    """An engine over the weights of a file, with a draft model if one is asked for.

    Also returns the sampling defaults that the file names.
    """
    with contextlib.ExitStack() as undo:
        path, repack = summary.path, tuning.repack
        weights = Model(path, gpu=asked.gpu, repack=repack, summary=summary, progress=on_load)
        undo.callback(weights.close)
        defaults = file_defaults(weights.path, summary.keys)
        draft_model = None
        if asked.draft is not None:
            draft_model = open_draft_model(
                asked.draft, weights, tuning, n_ctx=asked.n_ctx, gpu=asked.gpu
            )
            undo.callback(draft_model.close)
        engine = Engine(
            weights,
            n_ctx=asked.n_ctx,
            n_seqs=asked.n_seqs,
            n_threads=tuning.n_threads,
            n_threads_batch=tuning.n_threads_batch,
            n_ubatch=tuning.n_ubatch,
            # Only the f16 cache leaves a choice: f32 rules flash attention out, q8_0 needs it.
            flash_attention=tuning.flash_attention if asked.cache_type == "f16" else "auto",
            cache_type=asked.cache_type,
            plain_from=tuning.plain_from,
            draft_costs=draft_costs,
            draft_model=draft_model,
            pace=_pace(tuning, weights, fixed=asked.n_threads is not None),
        )
        undo.pop_all()
    engine.name = name
    return engine, defaults


def _pace(tuning: RunConfig, model: Model, *, fixed: bool) -> Pace | None:
    """What adapts the number of threads; None where they do not matter or there is nothing to try.

    That is where a GPU computes, and for one thread of which no rate is known.
    """
    if model.n_gpu_layers or (tuning.n_threads == 1 and tuning.decode_tps is None):
        return None
    return Pace(
        tuning.n_threads,
        tuning.n_threads_batch,
        tuning.decode_tps,
        fixed=fixed,
        on_contradiction=lambda: settings_cache.doubt(model.summary, tuning),
    )


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
