"""Owns what several commands share: options, loading with a word of what goes on, JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click

from edgesppo import remembered, store
from edgesppo.cli import JSON_KEY, aside
from edgesppo.cli.headings import Headed
from edgesppo.errors import UsageError
from edgesppo.parameters import Choice, Number
from edgesppo.plan import CACHE_TYPES
from edgesppo.sampler import SamplingParams
from edgesppo.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgesppo.loaded import LoadedModel

_ASKED_FOR = "edgesppo.asked_for"
_MOST, _MOST_LAYERS = 2**31 - 1, 10_000
# As `tune` has them, which would load llama.cpp only to explain an option.
GOALS = ("turn", "prefill", "decode", "memory", "off")
REAL_MODEL_HINT = (
    f"Using the tiny demo model. For the real one: edgesppo pull {store.REAL} --convert"
)


def say(text: str = "", *, newline: bool = True) -> None:
    """A word to the person, beside the answer: standard error, and nothing in it is obeyed.

    The answer stands where it cannot be said.
    """
    aside(printable(text), newline=newline)


def tell(text: str) -> None:
    """A line of the answer: standard output, and nothing in it is obeyed."""
    click.echo(printable(text))


def emit_json(value: Any) -> None:
    """One JSON object on standard output; what a terminal would obey is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    click.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def _remember_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    ctx.meta[JSON_KEY] = value
    return value


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_remember_json,
    help="Print one JSON object instead.",
)


def _gpu(_ctx: click.Context, _param: click.Parameter, value: str) -> str | int:
    """As the library takes it; layers that no device here can take are said to stay."""
    if not value.isdecimal():
        if value not in ("auto", "off"):
            raise click.BadParameter(f"{value!r} is none of auto, off or a number of layers")
        return value
    layers = int(value) if len(value) < len(str(_MOST)) else _MOST
    if layers > _MOST_LAYERS:
        raise click.BadParameter(f"{value[:20]} is too many, expected at most {_MOST_LAYERS}")
    if layers:
        from edgesppo._llama import can_offload

        if not can_offload():
            say(f"edgesppo: --gpu {layers}: no GPU that this build can use; the CPU computes")
    return layers


_model_option = functools.partial(click.option, cls=Headed, heading="Loading the model")
tune_option = _model_option(
    "--tune",
    type=click.Choice(GOALS),
    default="turn",
    show_default=True,
    help="Find, once, what is fastest here, for usual turns, prompts, answers or little memory.",
)


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a model is loaded; they arrive as one dict, `loading`."""
    options = [
        _model_option(
            "--n-ctx",
            type=click.IntRange(16, _MOST),
            help="Context length in tokens. [default: the model's]",
        ),
        _model_option(
            "--threads",
            type=click.IntRange(1, 1024),
            help="Threads. [default: all this process may use]",
        ),
        _model_option("--force", is_flag=True, help="Load even what will not fit into memory."),
        _model_option(
            "--gpu",
            default="auto",
            show_default=True,
            callback=_gpu,
            help="auto, off, or a number of layers.",
        ),
        _model_option(
            "--cache-type",
            type=click.Choice(list(CACHE_TYPES)),
            default="f16",
            show_default=True,
            help="What the KV cache is kept as.",
        ),
        tune_option,
        _model_option(
            "--drafts/--no-drafts",
            default=True,
            help="Guess what comes next, where that pays: no answer changes but by rounding."
            " [default: on]",
        ),
        _model_option(
            "--draft",
            metavar="FILE",
            help="A smaller GGUF of the same vocabulary that guesses, too.",
        ),
    ]

    @functools.wraps(command)
    def wrapped(*args: Any, threads: int | None, gpu: str | int, **kwargs: Any) -> Any:
        draft = kwargs.pop("draft")
        loading = {
            name: kwargs.pop(name) for name in ("n_ctx", "force", "cache_type", "tune", "drafts")
        }
        loading |= {"n_threads": threads, "gpu": gpu}
        if draft is not None:
            loading["drafts"] = draft
        return command(*args, loading=loading, **kwargs)

    return _decorate(wrapped, options)


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an option for every sampling parameter; those given arrive as one dict, `sampling`.

    Names, kinds and help come from SamplingParams, so there is one home for them.
    """
    fields = dataclasses.fields(SamplingParams)

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {field: kwargs.pop(field.name) for field in fields}
        sampling = _parsed(given)
        if "logprobs" in sampling and not kwargs.get("as_json"):
            raise click.UsageError("--logprobs needs a command with --json, which prints them")
        return command(*args, sampling=sampling, **kwargs)

    return _decorate(wrapped, [_sampling_option(field) for field in fields])


def _parsed(given: dict[dataclasses.Field[Any], Any]) -> dict[str, Any]:
    """The parameters that were given, as SamplingParams takes them."""
    try:
        sampling = {
            field.name: field.metadata["kind"].parsed(field.name, value)
            for field, value in given.items()
            if value not in (None, ())
        }
        SamplingParams().replace(**sampling)
    except UsageError as error:
        raise click.UsageError(str(error)) from None
    return sampling


def _sampling_option(field: dataclasses.Field[Any]) -> Callable[[Any], Any]:
    kind = field.metadata["kind"]
    of_numbers = isinstance(kind, Number | Choice)
    return click.option(
        "--" + field.name.replace("_", "-"),
        cls=Headed,
        heading="Sampling",
        type=kind.number if of_numbers else str,
        metavar=None if of_numbers else kind.metavar,
        multiple=kind.repeatable,
        help=f"{kind.help[:1].upper()}{kind.help[1:]}. [default: {kind.shown(field.default)}]",
    )


def _decorate(
    command: Callable[..., Any], options: list[Callable[[Any], Any]]
) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


def chosen(model: str | None) -> store.Found:
    """The model that was asked for; without one the last, the real one, or else the demo."""
    if model is not None:
        found = store.find(model)
        click.get_current_context().meta[_ASKED_FOR] = found
        return found
    found = store.default()
    is_demo = found == store.demo()
    say(REAL_MODEL_HINT if is_demo else f"Using {found.name} ({found.path})")
    return found


def converted(found: store.Found) -> Path:
    """The GGUF file of what was found; a checkpoint is converted first, visibly."""
    from edgesppo.cli.progress import conversion_progress
    from edgesppo.loaded import ensure_converted

    if not found.is_checkpoint:
        return found.path
    with conversion_progress(_converting(found)) as report:
        return ensure_converted(found, report)


@contextlib.contextmanager
def opened(found: store.Found, loading: dict[str, Any]) -> Iterator[LoadedModel]:
    """Load a model, converting a checkpoint first, and say so; close it afterwards."""
    with open_with_meters(loading, found) as loaded:
        if was_asked_for(found):
            remembered.use(store.words_for(found))
        yield loaded


def was_asked_for(found: store.Found) -> bool:
    """Whether a person named this very model."""
    return click.get_current_context().meta.get(_ASKED_FOR) is found


def open_with_meters(
    loading: dict[str, Any], found: store.Found, _report: object = None
) -> LoadedModel:
    """Load a model, converting a checkpoint first, and say so on standard error."""
    from edgesppo.cli.progress import conversion_progress, tuning_progress
    from edgesppo.loaded import load

    with conversion_progress(_converting(found)) as on_convert, tuning_progress() as on_tune:
        return load(found, on_convert=on_convert, on_tune=on_tune, **loading)


def open_reporting(
    loading: dict[str, Any], found: store.Found, report: Callable[[str, float], None]
) -> LoadedModel:
    """Load a model, converting a checkpoint first; `report` hears what is done, and its share."""
    from edgesppo.loaded import load

    title = _converting(found)
    return load(
        found,
        on_convert=lambda p: report(title, p.done_bytes / p.total_bytes),
        on_load=lambda share: report(f"Loading {found.name}", share),
        on_tune=lambda share: report("Finding the fastest settings for this machine (once)", share),
        **loading,
    )


def _converting(found: store.Found) -> str:
    return f"Converting {found.name} to Q4_K_M (once)"


def is_interactive() -> bool:
    """Whether a person sits at both ends."""
    return has_terminal(sys.stdin) and has_terminal(sys.stdout)


def has_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal; one that was closed before we began is None."""
    return stream is not None and stream.isatty()
