"""Check one parameter's value, and name the parameter in messages.

n_ctx (--n-ctx) is 0, expected a whole number from 16 to 8192
"""

from __future__ import annotations

import functools
import inspect
import numbers
import os
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from edgesppo.errors import UsageError
from edgesppo.system.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

P = ParamSpec("P")
T = TypeVar("T")

_SHOWN = 80
# Parameters whose command line option has another name.
_FLAGS = {
    "n_threads": "--threads",
    "n_dialogues": "--generate",
    "tensor_types": "--tensor-type",
    "adapters": "--adapter",
}
# Parameters without a command line option.
_WITHOUT_FLAG = ("n_seqs", "n_batch", "n_ubatch", "n_threads_batch", "flash_attention", "source")


def label(name: str) -> str:
    """The parameter's name, with the command line option where that is spelled differently."""
    flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
    if name in _WITHOUT_FLAG or name.startswith("on_") or flag == f"--{name}":
        return name
    return f"{name} ({flag})"


def invalid_value(name: str, value: object, expected: str) -> UsageError:
    """The error to raise for an invalid value; `expected` says which are valid."""
    return UsageError(f"{label(name)} is {quoted(value)}, expected {expected}")


class UnknownKeyword(UsageError, TypeError):
    """A function was called with an argument that it does not have."""


def suggests_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Let a call with an unknown keyword raise UsageError, with the most similar known one."""
    name = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for given in kwargs:
            if given not in known:
                raise UnknownKeyword(
                    f"{name}() has no argument {quoted(given)}{did_you_mean(given, known)}; there"
                    f" are {', '.join(known)}"
                )
        return function(*args, **kwargs)

    known = [each for each in inspect.signature(function).parameters if each != "self"]
    return call


def quoted(value: object) -> str:
    """The repr of any value, cut to a length that suits a message."""
    try:
        if isinstance(value, str):
            value = value[: _SHOWN + 1]  # the rest would be cut off anyway
        text = repr(value)
    except Exception:  # a number of thousands of digits has no repr
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def plain(value: Any) -> Any:
    """A number of another library, such as NumPy's, as a Python number; other values unchanged."""
    if type(value) in (int, float, bool, str):
        return value
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        value = value.item()  # a scalar of NumPy's, or an array without dimensions
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return value
    try:
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    except OverflowError:  # a fraction beyond all floats
        return value


def plain_list(value: Any) -> list[Any] | None:
    """The items of a list, tuple, set, range or one-dimensional array; None for anything else."""
    if callable(getattr(value, "tolist", None)):
        value = value.tolist()
    if not isinstance(value, list | tuple | set | frozenset | range):
        return None
    return [plain(item) for item in value]


def number(name: str, value: Any, low: float, high: float) -> float:
    """The value as a Python number.

    Raises UsageError unless it is a number within the limits, not NaN and not a bool.
    """
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
        raise invalid_value(name, value, f"a number from {low:g} to {high:.12g}")
    return found


def integer(name: str, value: Any, low: int, high: int) -> int:
    """The value as an int. Raises UsageError unless it is whole, within the limits, and no bool."""
    found = plain(value)
    if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
        raise invalid_value(name, value, f"a whole number from {low} to {high}")
    return found


def choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise UsageError unless `value` is one of the known words."""
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise invalid_value(name, value, f"one of {', '.join(known)}")


def boolean(name: str, value: Any) -> None:
    """Raise UsageError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise invalid_value(name, value, "True or False")


def callback(name: str, value: Any) -> None:
    """Raise UsageError unless `value` can be called or is None."""
    if value is not None and not callable(value):
        raise invalid_value(name, value, "a function, or None")


def path(name: str, value: Any) -> None:
    """Raise UsageError unless `value` can be a path."""
    if not isinstance(value, str | os.PathLike):
        raise invalid_value(name, value, "a path")


def texts(name: str, value: Any) -> None:
    """Raise UsageError unless `value` is a list of texts or paths; no single str."""
    found = plain_list(value)
    if found is None or not all(isinstance(item, str | os.PathLike) for item in found):
        raise invalid_value(name, value, "a list of texts")


def text(what: str, value: Any) -> None:
    """Raise UsageError unless `value` is a str without lone surrogates; `what` names it."""
    if not isinstance(value, str):
        raise UsageError(f"{what} has the type {type(value).__name__}, expected str")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise surrogate_error(what, error) from None


def surrogate_error(what: str, error: UnicodeEncodeError) -> UsageError:
    """The error to raise for a text that cannot be encoded as UTF-8."""
    letter = error.object[error.start]
    return UsageError(
        f"{what} has a lone surrogate, U+{ord(letter):04X}, at position {error.start}; "
        "it is half a character; remove it"
    )
