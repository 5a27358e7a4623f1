"""Owns the sampling parameters as a person sees and sets them in a chat.

Names, values, ranges and meanings are those of SamplingParams, whatever it has.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError
from edgesppo.sampling.fields import MAX_INT, Choice, Kind, Number, OptionalInteger, Strings
from edgesppo.sampling.params import SamplingParams
from edgesppo.terminal.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT, _NONE = "default", "none"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One parameter: its name, its value as it is written, what it takes, what it does."""

    name: str
    value: str
    takes: str
    meaning: str


def settings(params: SamplingParams) -> Iterator[Setting]:
    """Every parameter, in the order of its definition."""
    for field in dataclasses.fields(params):
        kind: Kind = field.metadata["kind"]
        value = _shown(field.name, getattr(params, field.name))
        yield Setting(field.name, value, _takes(kind), kind.help)


def names() -> list[str]:
    """Every parameter's name."""
    return [field.name for field in dataclasses.fields(SamplingParams)]


def unknown(name: str) -> UsageError:
    """Nothing is called that; what is called nearly so."""
    return UsageError(
        f"no parameter is called {name!r}{did_you_mean(name, names())}; /set lists them"
    )


def changed(
    params: SamplingParams, defaults: SamplingParams, name: str, word: str
) -> SamplingParams:
    """The parameters with one of them as the person typed it; "default" takes it back.

    Raises UsageError, naming the parameter and what it takes.
    """
    name = name.replace("-", "_")
    if name not in names():
        raise unknown(name)
    value = getattr(defaults, name) if word == DEFAULT else _parsed(name, word)
    return params.replace(**{name: value})


def _parsed(name: str, word: str) -> Any:
    kind = _kind(name)
    if isinstance(kind, OptionalInteger) and word in (kind.without, _NONE):
        return None
    if isinstance(kind, Number | Choice):
        return _number(word)
    if word == _NONE:
        return ()
    if isinstance(kind, Strings):
        return (word.replace("\\n", "\n").replace("\\t", "\t"),)
    return kind.parse(name, tuple(word.split()) if kind.repeatable else word)


def _number(word: str) -> Any:
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word  # which is refused in the kind's own words


def _kind(name: str) -> Kind:
    found: Kind = next(
        field.metadata["kind"] for field in dataclasses.fields(SamplingParams) if field.name == name
    )
    return found


def _shown(name: str, value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else _kind(name).format(value)


def _takes(kind: Kind) -> str:
    """What the kind takes, in short."""
    if isinstance(kind, Number):
        range_ = (
            f"{kind.low:g} or more" if kind.high >= MAX_INT else f"{kind.low:g} to {kind.high:g}"
        )
        return range_ if kind.also is None else f"{kind.also:g}, {range_}"
    if isinstance(kind, Choice):
        return " or ".join(str(number) for number in kind.known)
    return kind.metavar
