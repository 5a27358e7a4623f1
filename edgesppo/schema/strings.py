"""Owns how strings and tries become rules: JSON's spelling of characters, lengths, patterns.

A string without a pattern may spell its characters in any way JSON has; one with a pattern is
spelled the short way, and control characters without an escape of one letter only where nothing
else can stand.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgesppo.schema import automaton, charset, patterns
from edgesppo.schema.formats import FORMATS
from edgesppo.schema.limits import refused
from edgesppo.schema.rules import literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.schema.automaton import Dfa
    from edgesppo.schema.limits import Work
    from edgesppo.schema.rules import Rules, Sequence

# What stands in a JSON string as itself, and what has an escape of one letter.
RAW = charset.minus(charset.ANY, charset.union([(0, 0x1F), *charset.of('"\\')]))
_ESCAPES = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_ESCAPABLE = charset.of("".join(_ESCAPES))
_HEX = charset.of("0123456789abcdefABCDEF")
_CHAIN = 64  # repetitions counted one by one; more are counted in blocks of as many
_MAX_LENGTH_OF_PATTERNS = 2_000


class Strings:
    """Makes the rules of strings; each is made once."""

    def __init__(self, rules: Rules, work: Work) -> None:
        self._rules = rules
        self._work = work

    def any(self) -> Sequence:
        """Any string."""
        rest, new = self._rules.reserve("letters")
        if new:
            self._rules.define(rest, [(self.letter(), rest), literal('"')])
        return (*literal('"'), rest)

    def of(
        self, low: int, high: int | None, sources: Iterable[str], formats: Iterable[str]
    ) -> Sequence:
        """Strings of `low` to `high` characters that match all patterns and formats."""
        wanted = (*sources, *(FORMATS[name] for name in formats))
        if not wanted and low == 0 and high is None:
            return self.any()
        rule, new = self._rules.reserve(("string", low, high, wanted))
        if not new:
            return (rule,)
        if wanted:
            self._rules.define(rule, [self._matching(low, high, wanted)])
        else:
            self._rules.define(rule, [self._counted(low, high)])
        return (rule,)

    def letter(self) -> int:
        """One character, spelled in any way; a pair of surrogate escapes is one."""
        rule, new = self._rules.reserve("letter")
        if new:
            low = (*literal("\\u"), charset.of("dD"), charset.of("cdefCDEF"), _HEX, _HEX)
            surrogate = self._rules.add(
                [
                    (charset.of("01234567"), _HEX, _HEX),
                    (charset.of("89abAB"), _HEX, _HEX, *low),
                ]
            )
            code = self._rules.add(
                [
                    (charset.minus(_HEX, charset.of("dD")), _HEX, _HEX, _HEX),
                    (charset.of("dD"), surrogate),
                ]
            )
            escape = self._rules.add([(charset.of('"\\/bfnrt'),), (*literal("u"), code)])
            self._rules.define(rule, [(RAW,), (*literal("\\"), escape)])
        return rule

    def _counted(self, low: int, high: int | None) -> Sequence:
        letter = self.letter()
        head = self._exactly(letter, low)
        if high is None:
            return (*literal('"'), *head, *self.any()[1:])
        if high < low:
            return (self._rules.add([]),)
        return (*literal('"'), *head, *self._up_to(letter, high - low), *literal('"'))

    def _exactly(self, letter: int, n: int) -> Sequence:
        """`n` times, in blocks of blocks of letters."""
        found: list[int] = []
        block = letter
        while n:
            found = [block] * (n % _CHAIN) + found
            n //= _CHAIN
            block = self._block(block) if n else block
        return tuple(found)

    def _block(self, part: int) -> int:
        """A block of letters, or of blocks."""
        rule, new = self._rules.reserve(("block", part))
        if new:
            self._rules.define(rule, [(part,) * _CHAIN])
        return rule

    def _up_to(self, letter: int, n: int) -> Sequence:
        """Up to `n` times. Inside a block it is open whether this is the last one, so llama.cpp
        follows one position for each size of block; a string's end leaves one again."""
        sizes = [(letter, 1)]
        while sizes[-1][1] * _CHAIN <= n:
            block, size = sizes[-1]
            sizes.append((self._block(block), size * _CHAIN))
        rest: Sequence = ()
        for block, size in sizes:
            rest = self._blocks(block, n // size % _CHAIN, rest, self._fewer(sizes, size))
        return rest

    def _fewer(self, sizes: list[tuple[int, int]], size: int) -> Sequence:
        """Up to one less than `size` letters."""
        rest: Sequence = ()
        for block, smaller in sizes:
            if smaller < size:
                rest = self._blocks(block, _CHAIN - 1, rest, self._fewer(sizes, smaller))
        return rest

    def _blocks(self, block: int, n: int, full: Sequence, fewer: Sequence) -> Sequence:
        """`n` blocks and then `full`, or after any smaller number of them `fewer`."""
        for _ in range(n):
            rule, new = self._rules.reserve(("blocks", block, full, fewer))
            if new:
                body = [(block, *full), fewer]
                self._rules.define(rule, body, settled=bool(fewer))
            full = (rule,)
        return full

    def _matching(self, low: int, high: int | None, wanted: tuple[str, ...]) -> Sequence:
        found = patterns.automaton(wanted[0], self._work)
        for pattern in wanted[1:]:
            other = patterns.automaton(pattern, self._work)
            found = automaton.intersected(found, other, self._work)
        if low or high is not None:
            most = low if high is None else high
            if most > _MAX_LENGTH_OF_PATTERNS:
                raise refused(
                    self._work.where,
                    f"minLength or maxLength is {most} beside a pattern or format, "
                    f"expected at most {_MAX_LENGTH_OF_PATTERNS}",
                )
            lengths = automaton.of_length(low, high, self._work)
            found = automaton.intersected(found, lengths, self._work)
        return (*literal('"'), *self._read_by(found))

    def _read_by(self, dfa: Dfa) -> Sequence:
        """The spelled characters of an automaton's texts, with the closing quote."""
        states = [self._rules.reserve()[0] for _ in dfa.edges] or [self._rules.add([])]
        for state, edges in enumerate(dfa.edges):
            body: list[Sequence] = [literal('"')] if state in dfa.ends else []
            for letters, target in edges:
                body += self._spelled(letters, states[target])
            self._rules.define(states[state], body)
        return (states[0],)

    def _spelled(self, letters: charset.Charset, following: int) -> list[Sequence]:
        if letters == charset.ANY:
            return [(self.letter(), following)]
        found: list[Sequence] = []
        plain = charset.common(letters, RAW)
        if plain:
            found.append((plain, following))
        escaped = charset.common(letters, _ESCAPABLE)
        if escaped:
            points = [point for low, high in escaped for point in range(low, high + 1)]
            signs = charset.of("".join(_ESCAPES[chr(point)] for point in points))
            found.append((*literal("\\"), signs, following))
        if not found:
            points = [point for low, high in letters for point in range(low, high + 1)]
            found = [(*literal(f"\\u{point:04x}"), following) for point in points]
        return found


def trie(rules: Rules, entries: list[tuple[str, Sequence]]) -> list[Sequence]:
    """Alternatives for texts, each with what follows it; common beginnings are written once.

    A text may be the beginning of another only where what follows tells the two apart.
    """
    ordered = sorted(dict(entries).items())
    bodies: dict[int | None, list[Sequence]] = {None: []}
    todo: list[tuple[int | None, int, int, int]] = [(None, 0, len(ordered), 0)]
    while todo:
        rule, start, end, at = todo.pop()
        while start < end:
            text, rest = ordered[start]
            stop = start + 1
            if len(text) == at:
                bodies[rule].append(rest)
            else:
                while stop < end and ordered[stop][0][at] == text[at]:
                    stop += 1
                if stop > start + 1:
                    shared = _shared(text, ordered[stop - 1][0], at)
                    inner, _ = rules.reserve()
                    bodies[rule].append((*literal(text[at:shared]), inner))
                    bodies[inner] = []
                    todo.append((inner, start, stop, shared))
                else:
                    bodies[rule].append((*literal(text[at:]), *rest))
            start = stop
    body = bodies.pop(None)
    for inner_rule, inner_body in bodies.items():
        assert inner_rule is not None
        rules.define(inner_rule, inner_body)
    return body


def _shared(a: str, b: str, at: int) -> int:
    """Up to where two texts, alike before `at`, are alike."""
    while at < len(a) and at < len(b) and a[at] == b[at]:
        at += 1
    return at


def written(value: object) -> str:
    """A value as JSON, the short way."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
