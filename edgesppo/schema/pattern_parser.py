"""Parse the regular expressions of `pattern` (ECMA 262) to a tree of nodes.

Supported: characters, escapes, `.`, classes, `\\d \\w \\s` and their complements, groups (also
named), `|`, `^`, `$`, `* + ? {m} {m,} {m,n}`, lazy or not. Refused: look-around, back-references,
`\\b`, `\\p`, flags. Dialects differ in what `\\w`, `\\d` and `\\s` mean beyond ASCII: the sets of
characters here satisfy all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from edgesppo.schema import charset
from edgesppo.schema.limits import MAX_GROUPS, quoted, schema_error

if TYPE_CHECKING:
    from edgesppo.schema.charset import Charset

# A set of characters, an anchor ("^" or "$"), or an operation on other nodes.
Node: TypeAlias = tuple[object, ...]

_DIGITS = charset.of("0123456789")
_WORD = charset.union([(48, 57), (65, 90), (95, 95), (97, 122)])
_SPACE = charset.of(" \t\n\v\f\r")
_ASCII: Charset = ((0, 0x7F),)
# All characters that some dialect considers a space; \S excludes them all.
_ANY_SPACE = charset.of(
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_LINE_ENDS = charset.of("\n\r\u2028\u2029")
_CLASSES = {
    "d": _DIGITS,
    "D": charset.difference(_ASCII, _DIGITS),
    "w": _WORD,
    "W": charset.difference(_ASCII, _WORD),
    "s": _SPACE,
    "S": charset.difference(charset.ANY, _ANY_SPACE),
}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_DIFFERING = "dDwWsS"


class Parser:
    """A recursive descent parser; groups may be nested MAX_GROUPS deep."""

    def __init__(self, pattern: str, where: str) -> None:
        self._text = pattern
        self._at = 0
        self._depth = 0
        self._where = where

    def parse(self) -> Node:
        """The tree of the whole pattern. Raises UsageError for unsupported syntax."""
        node = self._alternatives()
        if self._at < len(self._text):
            raise self._error("a ')' without its '('")
        return node

    def _error(self, what: str) -> Exception:
        return schema_error(
            self._where,
            f"pattern {quoted(self._text)} has {what} at position {self._at}, which is not "
            "supported; expected characters, classes, groups, |, ^, $ and repetitions",
        )

    def _next(self, n: int = 1) -> str:
        return self._text[self._at : self._at + n]

    def _accept(self, text: str) -> bool:
        if self._text.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _alternatives(self) -> Node:
        parts = [self._sequence()]
        while self._accept("|"):
            parts.append(self._sequence())
        return parts[0] if len(parts) == 1 else ("or", *parts)

    def _sequence(self) -> Node:
        parts = []
        while self._at < len(self._text) and self._next() not in "|)":
            parts.append(self._repeated(self._atom()))
        return parts[0] if len(parts) == 1 else ("then", *parts)

    def _repeated(self, node: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        if node[0] in ("^", "$"):
            raise self._error("a repeated anchor")
        self._accept("?")
        return ("repeat", node, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._accept(sign):
                return bounds
        if not self._accept("{"):
            return None
        low = self._number()
        high: int | None = low
        if self._accept(","):
            high = None if self._next() == "}" else self._number()
        if not self._accept("}"):
            raise self._error("an unfinished repetition")
        if high is not None and high < low:
            raise self._error(
                f"the repetition {{{low},{high}}}, with its bounds the wrong way round"
            )
        return low, high

    def _number(self) -> int:
        start = self._at
        while self._next() and self._next() in "0123456789":
            self._at += 1
        if not 1 <= self._at - start <= 6:
            raise self._error("a repetition whose bound is not a number of 1 to 6 digits")
        return int(self._text[start : self._at])

    def _atom(self) -> Node:
        letter = self._next()
        if letter in "*+?{":
            raise self._error(f"{letter!r} with nothing before it")
        if letter in "}]":
            raise self._error(f"{letter!r} without its beginning")
        self._at += 1
        if letter == "(":
            return self._group()
        if letter == "[":
            return ("set", self._class())
        if letter in "^$":
            return (letter,)
        if letter == ".":
            return ("set", charset.difference(charset.ANY, _LINE_ENDS))
        if letter == "\\":
            return ("set", self._escape(in_class=False)[0])
        return ("set", self._plain(letter))

    def _plain(self, letter: str) -> Charset:
        if 0xD800 <= ord(letter) <= 0xDFFF:
            raise self._error("a lone surrogate")
        return ((ord(letter), ord(letter)),)

    def _group(self) -> Node:
        for sign in ("?=", "?!", "?<=", "?<!"):
            if self._text.startswith(sign, self._at):
                raise self._error(f"look-around ({sign})")
        if self._accept("?<"):
            while self._next().isidentifier() or self._next().isdecimal():
                self._at += 1
            if not self._accept(">"):
                raise self._error("a group name without its '>'")
        elif self._accept("?") and not self._accept(":"):
            raise self._error("a group with flags")
        self._depth += 1
        if self._depth > MAX_GROUPS:
            raise self._error(f"more than {MAX_GROUPS} nested groups")
        node = self._alternatives()
        self._depth -= 1
        if not self._accept(")"):
            raise self._error("a '(' without its ')'")
        return node

    def _class(self) -> Charset:
        negated = self._accept("^")
        ranges: list[tuple[int, int]] = []
        dialects_differ = False
        while not self._accept("]"):
            if self._at >= len(self._text):
                raise self._error("a '[' without its ']'")
            low, differs = self._member()
            dialects_differ |= differs
            if self._next() == "-" and self._next(2) not in ("-]", "-"):
                self._at += 1
                high, _ = self._member()
                single = [len(ends) == 1 and ends[0][0] == ends[0][1] for ends in (low, high)]
                if not all(single) or high[0][0] < low[0][0]:
                    raise self._error("a range whose ends are not characters in ascending order")
                ranges += charset.intersection(((low[0][0], high[0][0]),), charset.ANY)
            else:
                ranges += low
        members = charset.union(ranges)
        if not negated:
            return members
        return charset.difference(_ASCII if dialects_differ else charset.ANY, members)

    def _member(self) -> tuple[Charset, bool]:
        letter = self._next()
        if not letter:
            raise self._error("a '[' without its ']'")
        self._at += 1
        return self._escape(in_class=True) if letter == "\\" else (self._plain(letter), False)

    def _escape(self, *, in_class: bool) -> tuple[Charset, bool]:
        """The characters of an escape after the backslash, and whether dialects differ on them."""
        letter = self._next()
        self._at += 1
        if letter and letter in _CLASSES:
            return _CLASSES[letter], letter in _DIFFERING
        if letter == "0" and self._next().isdecimal():
            raise self._error("an octal escape")
        if letter and letter in _CONTROLS:
            return charset.of(_CONTROLS[letter]), False
        if letter == "b" and in_class:
            return charset.of("\b"), False
        if letter == "c" and self._next().isalpha() and self._next().isascii():
            self._at += 1
            return charset.of(chr(ord(self._text[self._at - 1]) % 32)), False
        if letter and letter in "xu":
            return self._plain(chr(self._code_point(letter))), False
        if not letter or letter.isalnum() or not letter.isascii():
            self._at -= 1
            raise self._error(f"the escape \\{letter}")
        return charset.of(letter), False

    def _code_point(self, letter: str) -> int:
        if letter == "u" and self._accept("{"):
            end = self._text.find("}", self._at)
            digits = self._text[self._at : end] if end >= 0 else ""
            self._at = end + 1 if end >= 0 else self._at
        else:
            digits = self._next(2 if letter == "x" else 4)
            self._at += len(digits)
            if len(digits) != (2 if letter == "x" else 4):
                digits = ""
        value = self._hex(digits, letter)
        if letter == "u" and 0xD800 <= value <= 0xDBFF and self._next(2) == "\\u":
            low = self._hex(self._text[self._at + 2 : self._at + 6], letter)
            self._at += 6
            value = 0x10000 + ((value - 0xD800) << 10) + (low - 0xDC00)
        if not 0 <= value <= 0x10FFFF:
            raise self._error("an escape beyond Unicode")
        return value

    def _hex(self, digits: str, letter: str) -> int:
        if not 1 <= len(digits) <= 6 or any(d not in "0123456789abcdefABCDEF" for d in digits):
            raise self._error(f"an unfinished \\{letter} escape")
        return int(digits, 16)
