"""What is published of a model: its shape, its training, its results and how to cite it.

All of it is optional, and known without a network. The fields are the keys of the tables:

    [model.shape]                       parameters, layers, sizes, tokens of context
    [model.training]                    what it was trained from, on and how
    [[model.result]]                    what it reached in a benchmark, as its makers published
    [model.citation]                    the paper to cite
"""

from __future__ import annotations

import functools
import math
import typing
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from edgesppo.errors import BadLock

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_TEXT = 500
_MAX_NUMBER = 1 << 53
_MAX_RESULTS = 32


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The hyper-parameters of a Gemma-2 model; sizes are in elements, lengths in tokens."""

    parameters: int
    layers: int
    hidden_size: int
    feed_forward_size: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    window: int
    attention_softcap: float
    output_softcap: float


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model was trained, as its makers published it; None where they say nothing."""

    started_from: str | None = None
    prompts: str | None = None
    prompts_from: str | None = None
    split: str | None = None
    split_by: str | None = None
    responses: str | None = None
    ranked_by: str | None = None
    language: str | None = None
    languages: str | None = None
    learning_rate: float | None = None
    eta: float | None = None
    batch_size_per_device: int | None = None
    devices: int | None = None
    gradient_accumulation: int | None = None
    distributed: str | None = None
    optimizer: str | None = None
    schedule: str | None = None
    warmup_ratio: float | None = None
    epochs: float | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """A published result of a benchmark: rates in per cent, the answers' length in characters."""

    benchmark: str
    length_controlled_win_rate: float | None = None
    win_rate: float | None = None
    average_length: int | None = None
    sampling: str | None = None


@dataclass(frozen=True, kw_only=True)
class Citation:
    """The publication to cite."""

    title: str
    authors: str
    year: int
    arxiv: str | None = None


_Table = TypeVar("_Table", Shape, Training, Result, Citation)


def read_published(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """The tables of a model's entry that are there, as fields of PinnedModel. Raises BadLock."""
    found: dict[str, Any] = {}
    for key, read in (("shape", _shape), ("training", _training), ("citation", _citation)):
        if key in entry:
            found[key] = read(entry[key], f"{where}, {key}")
    if "result" in entry:
        tables = entry["result"]
        if not isinstance(tables, list) or not 0 < len(tables) <= _MAX_RESULTS:
            raise BadLock(f"{where}: expected 1 to {_MAX_RESULTS} tables [[model.result]]")
        found["results"] = tuple(
            _read(Result, table, f"{where}, result {n}") for n, table in enumerate(tables, 1)
        )
    return found


def values_of(table: Shape | Training | Result | Citation) -> Iterator[tuple[str, Any]]:
    """The keys and values of a table, in the order of writing, without those that are None."""
    for field in fields(table):
        value = getattr(table, field.name)
        if value is not None:
            yield field.name, value


def _shape(table: Any, where: str) -> Shape:
    return _read(Shape, table, where)


def _training(table: Any, where: str) -> Training:
    return _read(Training, table, where)


def _citation(table: Any, where: str) -> Citation:
    return _read(Citation, table, where)


def _read(kind: type[_Table], table: Any, where: str) -> _Table:
    if not isinstance(table, dict):
        raise BadLock(f"{where}: expected a table, found {table!r:.80}")
    of: Any = kind
    types = _types_of(of)
    for key in table:
        if key not in types:
            raise BadLock(f"{where}: unknown key {key[:80]!r}; known: {', '.join(types)}")
    for name, expected in types.items():
        if name in table:
            table = table | {name: _value(name, table[name], expected, where)}
        elif type(None) not in typing.get_args(expected):
            raise BadLock(f"{where}: {name} is missing")
    return kind(**table)


@functools.cache
def _types_of(kind: type) -> dict[str, Any]:
    """The fields of a table and their types."""
    return typing.get_type_hints(kind)


def _value(name: str, value: Any, expected: Any, where: str) -> str | int | float:
    """The value of a key in the type of its field. Raises BadLock."""
    kinds = typing.get_args(expected) or (expected,)
    if str in kinds:
        if type(value) is str and 0 < len(value) <= _MAX_TEXT:
            return value
        raise BadLock(
            f"{where}: {name} is {value!r:.80}, expected a text of 1 to {_MAX_TEXT} characters"
        )
    if float in kinds and type(value) in (int, float) and 0 <= value <= _MAX_NUMBER:
        return float(value)
    if int in kinds and type(value) is int and 0 <= value <= _MAX_NUMBER:
        return int(value)
    what = "a number" if float in kinds else "a whole number"
    shown = value if not isinstance(value, float) or math.isfinite(value) else str(value)
    raise BadLock(f"{where}: {name} is {shown!r:.80}, expected {what} from 0 to 2^53")
