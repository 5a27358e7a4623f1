"""Kinds of parameters: which values each accepts, and how the command line spells them.

A kind checks a value given from Python and returns it in the form in which it is stored, and it
parses the value of a command line option. Both raise a UsageError that names the parameter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgesppo.errors import UsageError
from edgesppo.system import validate
from edgesppo.system.suggest import did_you_mean

MAX_INT = 2**31 - 1


@dataclass(frozen=True)
class Kind:
    """A kind of parameter; `help` says what this parameter does."""

    help: str
    repeatable: ClassVar[bool] = False
    metavar: ClassVar[str] = "TEXT"

    def check(self, name: str, value: Any) -> Any:
        """The value in the form in which it is stored. Raises UsageError if it is invalid."""
        raise NotImplementedError

    def parse(self, _name: str, given: Any) -> Any:
        """The value of a command line option as Python code would give it."""
        return given

    def format(self, default: Any) -> str:
        """A default value as the command line's help writes it."""
        return str(default)

    def field(self, default: Any) -> Any:
        """A dataclass field of this kind, with this default."""
        return dataclasses.field(default=default, metadata={"kind": self})


@dataclass(frozen=True)
class Number(Kind):
    """A finite number from `low` to `high`, or the value `also`."""

    low: float
    high: float
    also: float | None = None
    number: ClassVar[type] = float
    _word: ClassVar[str] = "a number"

    def check(self, name: str, value: Any) -> Any:
        """The value as a Python number."""
        found = validate.plain(value)
        if not self.accepts(found):
            raise validate.invalid_value(name, value, self.expected())
        return found

    def accepts(self, value: Any) -> bool:
        """Whether it is a Python number of this kind within the limits."""
        if not _is_number(value, self.number):
            return False
        return self.low <= value <= self.high or (self.also is not None and value == self.also)

    def expected(self) -> str:
        """The valid values, in words."""
        also = "" if self.also is None else f"{self.also:g} or "
        return f"{also}{self._word} from {self.low:.12g} to {self.high:.12g}"


@dataclass(frozen=True)
class Integer(Number):
    """A whole number within limits."""

    number: ClassVar[type] = int
    _word: ClassVar[str] = "a whole number"


@dataclass(frozen=True)
class OptionalInteger(Integer):
    """A whole number within limits, or None; `without` is the word for None in help texts."""

    without: str = "none"

    def check(self, name: str, value: Any) -> Any:
        """The value as an int, or None."""
        return None if value is None else super().check(name, value)

    def format(self, default: Any) -> str:
        """The number, or the word for None."""
        return self.without if default is None else str(default)


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few whole numbers."""

    known: tuple[int, ...]
    number: ClassVar[type] = int

    def check(self, name: str, value: Any) -> Any:
        """The value as an int."""
        found = validate.plain(value)
        if not _is_number(found, int) or found not in self.known:
            expected = " or ".join(str(number) for number in self.known)
            raise validate.invalid_value(name, value, expected)
        return found


@dataclass(frozen=True)
class Strings(Kind):
    """Non-empty strings, or a single one: at most `most`, each of at most `most_bytes` of UTF-8."""

    most: int = MAX_INT
    most_bytes: int = MAX_INT
    repeatable: ClassVar[bool] = True

    def check(self, name: str, value: Any) -> tuple[str, ...]:
        """The strings as a tuple."""
        found = [value] if isinstance(value, str) else validate.plain_list(value)
        if found is None:
            raise validate.invalid_value(name, value, "strings")
        texts = tuple(found)
        if len(texts) > self.most:
            raise _has(name, f"{len(texts)} strings", f"at most {self.most}")
        for text in texts:
            self._check(name, text)
        return texts

    def _check(self, name: str, text: Any) -> None:
        if not isinstance(text, str) or not text:
            raise _has(name, validate.quoted(text), "strings that are not empty")
        validate.text(name, text)
        data = text.encode("utf-8")
        if self.most_bytes < MAX_INT and (len(data) > self.most_bytes or 0 in data):
            most = f"at most {self.most_bytes} bytes of UTF-8, none of them 0"
            raise _has(name, validate.quoted(text), most)

    def parse(self, _name: str, given: tuple[str, ...]) -> tuple[str, ...]:
        """The strings; a single empty one stands for none."""
        return () if given == ("",) else given

    def format(self, default: tuple[str, ...]) -> str:
        """The repr of each, separated by spaces."""
        return " ".join(repr(text) for text in default) or "none"


@dataclass(frozen=True)
class Names(Kind):
    """A sequence of known names, each at most once; their order matters."""

    known: tuple[str, ...]
    metavar: ClassVar[str] = "NAME,..."

    def check(self, name: str, value: Any) -> tuple[str, ...]:
        """The names as a tuple."""
        known = f"some of: {', '.join(self.known)}"
        if not isinstance(value, tuple | list):
            raise validate.invalid_value(name, value, known)
        for item in value:
            if item not in self.known:
                near = did_you_mean(item, self.known) if isinstance(item, str) else ""
                raise _has(name, f"{validate.quoted(item)}{near}", known)
            if value.count(item) > 1:
                raise _has(name, f"{item!r} more than once", "each name once")
        return tuple(value)

    def parse(self, _name: str, given: str) -> tuple[str, ...]:
        """The names between the commas."""
        return _between_commas(given)

    def format(self, default: tuple[str, ...]) -> str:
        """Separated by commas, as the option expects them."""
        return ", ".join(default)


@dataclass(frozen=True)
class Tokens(Kind):
    """Token ids."""

    metavar: ClassVar[str] = "ID,..."

    def check(self, name: str, value: Any) -> tuple[int, ...]:
        """The ids as a tuple."""
        tokens = validate.plain_list(value)
        if tokens is None:
            raise validate.invalid_value(name, value, "token ids")
        for token in tokens:
            _check_token(name, token)
        return tuple(tokens)

    def parse(self, name: str, given: str) -> tuple[int, ...]:
        """The ids between the commas."""
        return tuple(_token(name, word) for word in _between_commas(given))

    def format(self, default: tuple[int, ...]) -> str:
        """Separated by commas, as the option expects them."""
        return ",".join(str(token) for token in default) or "none"


@dataclass(frozen=True)
class Biases(Kind):
    """A mapping from token id to a number within limits; stored as pairs, sorted by id."""

    low: float
    high: float
    repeatable: ClassVar[bool] = True
    metavar: ClassVar[str] = "ID=BIAS"

    def check(self, name: str, value: Any) -> tuple[tuple[int, float], ...]:
        """The pairs (token id, bias), sorted; `value` may be a mapping or such pairs."""
        pairs = tuple(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(pairs, tuple | list) or not all(
            isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs
        ):
            raise validate.invalid_value(name, value, "a mapping from token id to bias")
        limits = Number(self.help, self.low, self.high)
        pairs = [(validate.plain(token), validate.plain(bias)) for token, bias in pairs]
        for token, bias in pairs:
            _check_token(name, token)
            if not limits.accepts(bias):
                raise _has(name, f"{validate.quoted(bias)} for token {token}", limits.expected())
        if len({token for token, _ in pairs}) < len(pairs):
            raise _has(name, "a token more than once", "each token once")
        return tuple(sorted((token, float(bias)) for token, bias in pairs))

    def parse(self, name: str, given: tuple[str, ...]) -> tuple[tuple[int, float], ...]:
        """The pairs from texts of the form "ID=BIAS"."""
        return tuple(self._pair(name, word) for word in given)

    def _pair(self, name: str, word: str) -> tuple[int, float]:
        token, _, bias = word.partition("=")
        try:
            return _token(name, token), float(bias)
        except ValueError:
            raise validate.invalid_value(name, word, "ID=BIAS, such as 107=-2.5") from None

    def format(self, default: tuple[tuple[int, float], ...]) -> str:
        """The biases as the option expects them: ID=BIAS, separated by spaces."""
        return " ".join(f"{token}={bias:g}" for token, bias in default) or "none"


def _is_number(value: Any, kind: type) -> bool:
    kinds = (int,) if kind is int else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool)


def _check_token(name: str, token: Any) -> None:
    if not _is_number(token, int) or not 0 <= token <= MAX_INT:
        raise _has(name, validate.quoted(token), "token ids from 0")


def _has(name: str, part: str, expected: str) -> UsageError:
    return UsageError(f"{validate.label(name)} has {part}, expected {expected}")


def _between_commas(given: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in given.split(",") if word.strip())


def _token(name: str, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise _has(name, validate.quoted(word), "token ids from 0") from None
