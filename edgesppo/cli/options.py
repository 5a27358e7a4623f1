"""Options that several commands share: --json, loading a model, and sampling."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgesppo.cli import JSON_KEY
from edgesppo.cli.completion import complete_files, complete_models
from edgesppo.cli.help_format import Headed
from edgesppo.cli.output import say
from edgesppo.errors import UsageError
from edgesppo.planning.run_config import CACHE_TYPES, DEFAULT_PARALLEL, GOALS, MOST_SEQS
from edgesppo.sampling.fields import Choice, Number
from edgesppo.sampling.params import SamplingParams
from edgesppo.system.fs import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesppo.chat.structured import AnswerFormat

_MOST, _MOST_LAYERS = 2**31 - 1, 10_000


def _remember_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    ctx.meta[JSON_KEY] = value or ctx.meta.get(JSON_KEY, False)
    return value


def adapter_option(help_text: str) -> Callable[[Any], Any]:
    """The option --adapter, repeatable, as the parameter `adapters`."""
    return click.option(
        "--adapter",
        "adapters",
        multiple=True,
        metavar="DIR[=WEIGHT]",
        shell_complete=complete_files,
        help=help_text,
    )


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_remember_json,
    help="Print one JSON object instead of text.",
)

json_lines_option = click.option(
    "--json-lines",
    "as_lines",
    is_flag=True,
    is_eager=True,
    callback=_remember_json,
    help='Stream one JSON object a line: each piece of the answer as {"text": ...}, the last with'
    " finish_reason, usage, timings and model.",
)


parallel_option = click.option(
    "--parallel",
    type=click.IntRange(1, MOST_SEQS),
    default=DEFAULT_PARALLEL,
    show_default=True,
    help="How many answers to generate at once; they share the context (--n-ctx). `edgesppo bench`"
    " measures which number is fastest here.",
)


ray_option = click.option(
    "--ray",
    metavar="ADDRESS",
    help="Spread the rows over the machines of a Ray cluster (HOST:6379); each loads MODEL"
    " from its own store.",
)


def _gpu(ctx: click.Context, _param: click.Parameter, value: str) -> str | int:
    """Parse --gpu: auto, off or a number of layers. Warns if there is no GPU to use."""
    if not value.isdecimal():
        if value not in ("auto", "off"):
            raise click.BadParameter(f"{value!r} is not auto, off or a number of layers")
        return value
    layers = int(value) if len(value) < len(str(_MOST)) else _MOST
    if layers > _MOST_LAYERS:
        raise click.BadParameter(f"{value[:20]} is too many, expected at most {_MOST_LAYERS}")
    if layers and not ctx.resilient_parsing:  # as it is for shell completion
        from edgesppo.llama.library import can_offload

        if not can_offload():
            say(f"edgesppo: --gpu {layers}: this build finds no GPU that it can use; using the CPU")
    return layers


_LOADING = "Loading the model"
_model_option = functools.partial(click.option, cls=Headed, heading=_LOADING)
tune_option = _model_option(
    "--tune",
    type=click.Choice(GOALS),
    default="turn",
    show_default=True,
    help="What to optimise the settings for, measured once on this machine: typical turns, long"
    " prompts, long answers, or little memory.",
)


_MODEL_OPTIONS = [
    _model_option(
        "--n-ctx",
        type=click.IntRange(16, _MOST),
        help="Context length in tokens. [default: the model's]",
    ),
    _model_option(
        "--threads",
        type=click.IntRange(1, 1024),
        help="Number of threads. [default: the fastest; 1 for models of a few MB]",
    ),
    _model_option(
        "--force", is_flag=True, help="Load the model even if it will not fit into memory."
    ),
    _model_option(
        "--gpu",
        default="auto",
        show_default=True,
        callback=_gpu,
        help="Layers to compute on the GPU: auto, off or a number.",
    ),
    _model_option(
        "--cache-type",
        type=click.Choice(list(CACHE_TYPES)),
        default="f16",
        show_default=True,
        help="Data type of the KV cache.",
    ),
    tune_option,
    _model_option(
        "--drafts/--no-drafts",
        default=True,
        help="Guess the next tokens where that is faster (speculative decoding); answers change"
        " only by rounding. [default: on]",
    ),
    _model_option(
        "--draft",
        metavar="MODEL",
        shell_complete=complete_models,
        help="A smaller model of the same vocabulary for the guesses.",
    ),
]


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for loading a model; the command receives them as one dict, `loading`."""

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

    return _decorate(wrapped, _MODEL_OPTIONS)


def given_model_options() -> list[str]:
    """The options for loading a model that the command line of this command has."""
    ctx = click.get_current_context()
    return [
        option.opts[0]
        for option in ctx.command.params
        if isinstance(option, Headed)
        and option.heading == _LOADING
        and ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    ]


def sampling_options(command: Callable[..., Any], *, to_file: bool = False) -> Callable[..., Any]:
    """Add an option for every sampling parameter; the command receives those given as `sampling`.

    Names, types and help texts come from the fields of SamplingParams. A command that does not
    write its answers `to_file` prints log-probabilities only as JSON.
    """
    fields = dataclasses.fields(SamplingParams)

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {field: kwargs.pop(field.name) for field in fields}
        sampling = _parsed(given)
        as_json = to_file or kwargs.get("as_json") or kwargs.get("as_lines")
        if "logprobs" in sampling and not as_json:
            either = "--json or --json-lines" if "as_lines" in kwargs else "--json"
            raise click.UsageError(f"--logprobs needs {either}, to print them; add {either}")
        return command(*args, sampling=sampling, **kwargs)

    return _decorate(wrapped, [_sampling_option(field) for field in fields])


batch_sampling_options = functools.partial(sampling_options, to_file=True)


def _parsed(given: dict[dataclasses.Field[Any], Any]) -> dict[str, Any]:
    """Convert the given options to values of SamplingParams. Raises click.UsageError."""
    try:
        sampling = {
            field.name: field.metadata["kind"].parse(field.name, value)
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
        help=f"{kind.help[:1].upper()}{kind.help[1:]}. [default: {kind.format(field.default)}]",
    )


def read_schema(schema_file: str) -> AnswerFormat:
    """Read the JSON Schema in a file. Raises UsageError if it is invalid or not supported."""
    from edgesppo import schema
    from edgesppo.chat import structured

    try:
        data = read_regular(Path(schema_file), schema.MAX_BYTES)
    except OSError as error:
        if schema_file.lstrip().startswith("{"):
            raise UsageError(
                "--schema takes the name of a file, not the schema itself; write it to a file"
            ) from None
        raise UsageError(f"{schema_file}: cannot be read: {error.strerror or error}") from None
    return structured.answer_format(schema.parse(data, schema_file))


def _decorate(
    command: Callable[..., Any], options: list[Callable[[Any], Any]]
) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command
