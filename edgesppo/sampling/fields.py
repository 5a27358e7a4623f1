"""Owns the kinds of parameters: what values each takes, and how the command line spells them.

A kind checks a value given from Python and returns it as it is kept, and parses what the command
line was given. Both raise UsageError that names the parameter. Knows nothing of what the
parameters mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgesppo.errors import UsageError
from edgesppo.system import validate

MAX_INT = 2**31 - 1


@dataclass(frozen=True)
class Kind:
    """What a parameter is (`help`) and takes."""

    help: str
    repeatable: ClassVar[bool] = False
    metavar: ClassVar[str] = "TEXT"

    def checked(self, name: str, value: Any) -> Any:
        """The value as it is kept. Raises UsageError for one that makes no sense."""
        raise NotImplementedError

    def parsed(self, _name: str, given: Any) -> Any:
        """What the command line was given, as Python takes it."""
        return given

    def shown(self, default: Any) -> str:
        """A default as the command line's help writes it."""
        return str(default)

    def parameter(self, default: Any) -> Any:
        """A dataclass field of this kind."""
        return dataclasses.field(default=default, metadata={"kind": self})


@dataclass(frozen=True)
class Number(Kind):
    """A number within limits, infinities and NaN never; `also` is one more value beside them."""

    low: float
    high: float
    also: float | None = None
    number: ClassVar[type] = float
    _word: ClassVar[str] = "a number"

    def checked(self, name: str, value: Any) -> Any:
        """The value itself."""
        if not self.takes(value):
            raise validate.invalid_value(name, value, self.expected())
        return value

    def takes(self, value: Any) -> bool:
        """Whether it is such a number."""
        if not _is_number(value, self.number):
            return False
        return self.low <= value <= self.high or (self.also is not None and value == self.also)

    def expected(self) -> str:
        """What it takes, in words."""
        also = "" if self.also is None else f"{self.also:g} or "
        return f"{also}{self._word} from {self.low:.12g} to {self.high:.12g}"


@dataclass(frozen=True)
class Whole(Number):
    """A whole number within limits."""

    number: ClassVar[type] = int
    _word: ClassVar[str] = "a whole number"


@dataclass(frozen=True)
class OptionalWhole(Whole):
    """A whole number within limits, or None; `without` says what None means."""

    without: str = "none"

    def checked(self, name: str, value: Any) -> Any:
        """The value itself."""
        return None if value is None else super().checked(name, value)

    def shown(self, default: Any) -> str:
        """The word for None."""
        return self.without if default is None else str(default)


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few whole numbers."""

    known: tuple[int, ...]
    number: ClassVar[type] = int

    def checked(self, name: str, value: Any) -> Any:
        """The value itself."""
        if not _is_number(value, int) or value not in self.known:
            expected = " or ".join(str(number) for number in self.known)
            raise validate.invalid_value(name, value, expected)
        return value


@dataclass(frozen=True)
class Texts(Kind):
    """Strings that are not empty; one may stand alone. At most so many, of so many bytes."""

    most: int = MAX_INT
    most_bytes: int = MAX_INT
    repeatable: ClassVar[bool] = True

    def checked(self, name: str, value: Any) -> tuple[str, ...]:
        """The strings as a tuple."""
        if not isinstance(value, str | tuple | list):
            raise validate.invalid_value(name, value, "strings")
        texts = (value,) if isinstance(value, str) else tuple(value)
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

    def parsed(self, _name: str, given: tuple[str, ...]) -> tuple[str, ...]:
        """The texts; one empty one means none at all."""
        return () if given == ("",) else given

    def shown(self, default: tuple[str, ...]) -> str:
        """Each as Python writes it."""
        return " ".join(repr(text) for text in default) or "none"


@dataclass(frozen=True)
class Names(Kind):
    """Some of a few known names, each at most once, in an order that matters."""

    known: tuple[str, ...]
    metavar: ClassVar[str] = "NAME,..."

    def checked(self, name: str, value: Any) -> tuple[str, ...]:
        """The names as a tuple."""
        known = f"some of: {', '.join(self.known)}"
        if not isinstance(value, tuple | list):
            raise validate.invalid_value(name, value, known)
        for item in value:
            if item not in self.known:
                raise _has(name, validate.quoted(item), known)
            if value.count(item) > 1:
                raise _has(name, f"{item!r} more than once", "each name once")
        return tuple(value)

    def parsed(self, _name: str, given: str) -> tuple[str, ...]:
        """What stands between the commas."""
        return _between_commas(given)

    def shown(self, default: tuple[str, ...]) -> str:
        """With commas, as the option takes them."""
        return ", ".join(default)


@dataclass(frozen=True)
class Tokens(Kind):
    """Token ids."""

    metavar: ClassVar[str] = "ID,..."

    def checked(self, name: str, value: Any) -> tuple[int, ...]:
        """The ids as a tuple."""
        if not isinstance(value, tuple | list):
            raise validate.invalid_value(name, value, "token ids")
        for token in value:
            _check_token(name, token)
        return tuple(value)

    def parsed(self, name: str, given: str) -> tuple[int, ...]:
        """The ids between the commas."""
        return tuple(_token(name, word) for word in _between_commas(given))

    def shown(self, default: tuple[int, ...]) -> str:
        """With commas, as the option takes them."""
        return ",".join(str(token) for token in default) or "none"


@dataclass(frozen=True)
class Biases(Kind):
    """A mapping from token id to a number within limits; kept as pairs in the order of the ids."""

    low: float
    high: float
    repeatable: ClassVar[bool] = True
    metavar: ClassVar[str] = "ID=BIAS"

    def checked(self, name: str, value: Any) -> tuple[tuple[int, float], ...]:
        """The pairs (token id, bias), as which it may be given, too."""
        pairs = tuple(value.items()) if isinstance(value, Mapping) else value
        if not isinstance(pairs, tuple | list) or not all(
            isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs
        ):
            raise validate.invalid_value(name, value, "a mapping from token id to bias")
        limits = Number(self.help, self.low, self.high)
        for token, bias in pairs:
            _check_token(name, token)
            if not limits.takes(bias):
                raise _has(name, f"{validate.quoted(bias)} for token {token}", limits.expected())
        if len({token for token, _ in pairs}) < len(pairs):
            raise _has(name, "a token more than once", "each token once")
        return tuple(sorted((token, float(bias)) for token, bias in pairs))

    def parsed(self, name: str, given: tuple[str, ...]) -> tuple[tuple[int, float], ...]:
        """The pairs that "ID=BIAS" spells."""
        return tuple(self._pair(name, word) for word in given)

    def _pair(self, name: str, word: str) -> tuple[int, float]:
        token, _, bias = word.partition("=")
        try:
            return _token(name, token), float(bias)
        except ValueError:
            raise validate.invalid_value(name, word, "ID=BIAS, such as 107=-2.5") from None

    def shown(self, default: tuple[tuple[int, float], ...]) -> str:
        """As the option takes them."""
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
