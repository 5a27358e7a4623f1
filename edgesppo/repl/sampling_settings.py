"""The sampling parameters as `/set` shows and changes them.

Names, ranges and meanings are read from the fields of SamplingParams.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from edgesppo.errors import UsageError
from edgesppo.sampling.fields import MAX_INT, Choice, Kind, Number, OptionalInteger, Strings
from edgesppo.sampling.params import SamplingParams
from edgesppo.system.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULT, _NONE = "default", "none"
_QUOTED = r"""(?:"[^"]*"|'[^']*')(?=[\s,]|$)"""
# A name, the sign, and the value if that is in quotes, in which nothing is an assignment.
_ASSIGNED = re.compile(rf"(?:^|(?<=[\s,]))([A-Za-z][\w-]*)\s*(:?=|:)\s*(?:{_QUOTED})?")
_NAMED = re.compile(r"([A-Za-z][\w-]*)\s+(?!:?=|:)")


@dataclasses.dataclass(frozen=True)
class Setting:
    """One parameter: its name, its value as text, the values it takes, and its meaning."""

    name: str
    value: str
    takes: str
    meaning: str


def settings(params: SamplingParams) -> Iterator[Setting]:
    """Every parameter, in the order in which SamplingParams defines them."""
    for field in dataclasses.fields(params):
        kind: Kind = field.metadata["kind"]
        value = _shown(field.name, getattr(params, field.name))
        yield Setting(field.name, value, _takes(kind), kind.help)


def names() -> list[str]:
    """The names of all parameters."""
    return [field.name for field in dataclasses.fields(SamplingParams)]


def canonical(name: str) -> str:
    """A parameter's name as SamplingParams has it, of one as people write it: Top-K."""
    return name.replace("-", "_").lower()


def unknown_parameter(name: str) -> UsageError:
    """The error for an unknown name, with the most similar known one."""
    return UsageError(
        f"unknown parameter {name!r}{did_you_mean(name, names())}; /set lists the parameters"
    )


def assignments(text: str) -> list[tuple[str, str]]:
    """The (name, value) pairs of `NAME`, `NAME VALUE` or `NAME=VALUE ...`.

    A value may have spaces and be in quotes, and is empty for `NAME` alone. Names that are known
    are also recognised before `:`, and behind a comma. Raises UsageError for `NAME=` without a
    value, and for a name that is given twice.
    """
    if "=" in text:
        text = _unquoted(text)
    named = _NAMED.match(text)
    if named is not None and canonical(named[1]) in names():
        text = f"{named[1]}={text[named.end() :]}"
    found = [one for one in _ASSIGNED.finditer(text) if _assigns(text, one)]
    if not found or found[0].start():
        name, _, value = text.partition(" ")
        return [(name, value.strip())] if name else []
    ends = [*(one.start() for one in found[1:]), len(text)]
    pairs: dict[str, str] = {}
    for one, end in zip(found, ends, strict=True):
        value = text[one.end(2) : end].strip()
        if end < len(text):
            value = value.removesuffix(",")
        if not value:
            raise UsageError(f"{one[1]}= has no value; give one, or show it with /set {one[1]}")
        if one[1] in pairs:
            raise UsageError(f"{one[1]} is given twice; /set takes each parameter once")
        pairs[one[1]] = _unquoted(value)
    return [*pairs.items()]


def _assigns(text: str, found: re.Match[str]) -> bool:
    """Whether it is an assignment, and not a part of a value."""
    is_plain = found[2] == "=" and not text[: found.start()].endswith(",")
    return is_plain or canonical(found[1]) in names()


def _unquoted(value: str) -> str:
    """The value without the quotes around it, if any."""
    is_quoted = len(value) > 2 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if is_quoted else value


def changed(
    params: SamplingParams, defaults: SamplingParams, name: str, text: str
) -> SamplingParams:
    """The parameters with one of them set from text; "default" resets it to `defaults`.

    Raises UsageError, naming the parameter and the values it takes.
    """
    if canonical(name) not in names():
        raise unknown_parameter(name)
    name = canonical(name)
    value = getattr(defaults, name) if text == DEFAULT else _parsed(name, text)
    return params.replace(**{name: value})


def _parsed(name: str, text: str) -> Any:
    kind = _kind(name)
    if isinstance(kind, OptionalInteger) and text in (kind.without, _NONE):
        return None
    if isinstance(kind, Number | Choice):
        return _number(text)
    if text == _NONE:
        return ()
    if isinstance(kind, Strings):
        return (text.replace("\\n", "\n").replace("\\t", "\t"),)
    return kind.parse(name, tuple(text.split()) if kind.repeatable else text)


def _number(text: str) -> Any:
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text  # SamplingParams refuses it and names the range


def _kind(name: str) -> Kind:
    kind: Kind = next(
        field.metadata["kind"] for field in dataclasses.fields(SamplingParams) if field.name == name
    )
    return kind


def _shown(name: str, value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else _kind(name).format(value)


def _takes(kind: Kind) -> str:
    """The values that a kind takes, in short."""
    if isinstance(kind, Number):
        range_ = (
            f"{kind.low:g} or more" if kind.high >= MAX_INT else f"{kind.low:g} to {kind.high:g}"
        )
        return range_ if kind.also is None else f"{kind.also:g}, {range_}"
    if isinstance(kind, Choice):
        return " or ".join(str(number) for number in kind.known)
    return kind.metavar
