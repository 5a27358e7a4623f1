"""Grammar rules for strings (JSON escapes, lengths, patterns), and tries of texts.

A string without a pattern may spell its characters in any way that JSON allows. One with a pattern
uses the shortest spelling, and control characters without a short escape only where no other
character is possible.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgesppo.schema import automaton, charset, patterns
from edgesppo.schema.formats import FORMATS
from edgesppo.schema.limits import schema_error
from edgesppo.schema.rules import literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.schema.automaton import Dfa
    from edgesppo.schema.limits import Work
    from edgesppo.schema.rules import Rules, Sequence

# The characters of a JSON string without an escape, and those with an escape of one letter.
RAW = charset.difference(charset.ANY, charset.union([(0, 0x1F), *charset.of('"\\')]))
_ESCAPES = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
_ESCAPABLE = charset.of("".join(_ESCAPES))
_HEX = charset.of("0123456789abcdefABCDEF")
_CHAIN = 64  # repetitions that are counted one by one; more are counted in blocks of this size
_MAX_LENGTH_OF_PATTERNS = 2_000


class Strings:
    """Adds the rules of strings to a grammar, each rule once."""

    def __init__(self, rules: Rules, work: Work) -> None:
        self._rules = rules
        self._work = work

    def any(self) -> Sequence:
        """Any string, in quotes."""
        rest, new = self._rules.reserve("letters")
        if new:
            self._rules.define(rest, [(self.letter(), rest), literal('"')])
        return (*literal('"'), rest)

    def of(
        self, low: int, high: int | None, sources: Iterable[str], formats: Iterable[str]
    ) -> Sequence:
        """Strings of `low` to `high` characters that match all patterns and formats."""
        required = (*sources, *(FORMATS[name] for name in formats))
        if not required and low == 0 and high is None:
            return self.any()
        rule, new = self._rules.reserve(("string", low, high, required))
        if not new:
            return (rule,)
        if required:
            self._rules.define(rule, [self._matching(low, high, required)])
        else:
            self._rules.define(rule, [self._counted(low, high)])
        return (rule,)

    def letter(self) -> int:
        """One character in any spelling; a pair of surrogate escapes is one character."""
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
                    (charset.difference(_HEX, charset.of("dD")), _HEX, _HEX, _HEX),
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
        """`n` characters, in nested blocks."""
        parts: list[int] = []
        block = letter
        while n:
            parts = [block] * (n % _CHAIN) + parts
            n //= _CHAIN
            block = self._block(block) if n else block
        return tuple(parts)

    def _block(self, part: int) -> int:
        """A block of _CHAIN characters or smaller blocks."""
        rule, new = self._rules.reserve(("block", part))
        if new:
            self._rules.define(rule, [(part,) * _CHAIN])
        return rule

    def _up_to(self, letter: int, n: int) -> Sequence:
        """Up to `n` characters.

        Within a block it is open whether it is the last one, so llama.cpp follows one position for
        each size of block; the end of the string leaves one again.
        """
        sizes = [(letter, 1)]
        while sizes[-1][1] * _CHAIN <= n:
            block, size = sizes[-1]
            sizes.append((self._block(block), size * _CHAIN))
        rest: Sequence = ()
        for block, size in sizes:
            rest = self._blocks(block, n // size % _CHAIN, rest, self._fewer(sizes, size))
        return rest

    def _fewer(self, sizes: list[tuple[int, int]], size: int) -> Sequence:
        """Fewer than `size` characters."""
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
                self._rules.define(rule, body, may_overlap=bool(fewer))
            full = (rule,)
        return full

    def _matching(self, low: int, high: int | None, required: tuple[str, ...]) -> Sequence:
        dfa = patterns.automaton(required[0], self._work)
        for pattern in required[1:]:
            other = patterns.automaton(pattern, self._work)
            dfa = automaton.intersection(dfa, other, self._work)
        if low or high is not None:
            most = low if high is None else high
            if most > _MAX_LENGTH_OF_PATTERNS:
                raise schema_error(
                    self._work.where,
                    f"minLength or maxLength is {most} beside a pattern or format, "
                    f"expected at most {_MAX_LENGTH_OF_PATTERNS}",
                )
            lengths = automaton.of_length(low, high, self._work)
            dfa = automaton.intersection(dfa, lengths, self._work)
        return (*literal('"'), *self._rules_of(dfa))

    def _rules_of(self, dfa: Dfa) -> Sequence:
        """The texts of an automaton as spelled in JSON, with the closing quote."""
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
        spellings: list[Sequence] = []
        plain = charset.intersection(letters, RAW)
        if plain:
            spellings.append((plain, following))
        escaped = charset.intersection(letters, _ESCAPABLE)
        if escaped:
            points = [point for low, high in escaped for point in range(low, high + 1)]
            signs = charset.of("".join(_ESCAPES[chr(point)] for point in points))
            spellings.append((*literal("\\"), signs, following))
        if not spellings:
            points = [point for low, high in letters for point in range(low, high + 1)]
            spellings = [(*literal(f"\\u{point:04x}"), following) for point in points]
        return spellings


def trie(rules: Rules, entries: list[tuple[str, Sequence]]) -> list[Sequence]:
    """Alternatives for texts, each with what follows it; common prefixes are written once.

    A text may be a prefix of another only if what follows tells them apart.
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
                    shared = _common_end(text, ordered[stop - 1][0], at)
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


def _common_end(a: str, b: str, at: int) -> int:
    """The end of the common prefix of two texts that are equal before `at`."""
    while at < len(a) and at < len(b) and a[at] == b[at]:
        at += 1
    return at


def to_json(value: object) -> str:
    """A value as JSON in its shortest form."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
