"""A grammar under construction: rules of characters and references, and their GBNF text.

The text must be safe for llama.cpp: its parser and its check for left recursion are recursive, and
a grammar whose alternatives begin with the same characters can double the positions that it tracks
at every step. So `text` first drops rules that can never be completed, then merges alternatives
with a common beginning until one character tells them apart, and writes rules without groups or
repetitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from edgesppo.schema import charset
from edgesppo.schema.limits import MAX_RULES, schema_error

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from edgesppo.schema.charset import Charset
    from edgesppo.schema.limits import Work

# The number of a rule, or a set of characters that stands for one of them.
Element: TypeAlias = "int | Charset"
Sequence: TypeAlias = tuple[Element, ...]

_MAX_MERGED = 4_000  # places where alternatives were merged
_MAX_FOLLOWING = 5_000  # elements that may follow such a place
_TOO_ALIKE = (
    "its alternatives have too long a common beginning; give each a first property with a const of "
    "its own, or merge them"
)


def literal(text: str) -> Sequence:
    """A sequence that spells a text."""
    return tuple(((ord(letter), ord(letter)),) for letter in text)


class Rules:
    """The rules by number; rule 0 is the root. A rule is a list of alternative sequences."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._bodies: list[list[Sequence]] = []
        self._where: list[str] = []
        self._known: dict[Hashable, int] = {}
        self._may_overlap: set[int] = set()
        self._firsts: dict[int, tuple[Charset, bool]] = {}
        self._merged: dict[frozenset[Sequence], int] = {}

    def reserve(self, key: Hashable = None) -> tuple[int, bool]:
        """The number of a rule, and whether it is new; the same key gives the same rule."""
        if key is not None and key in self._known:
            return self._known[key], False
        number = len(self._bodies)
        if number >= MAX_RULES:
            raise schema_error(self._work.where, f"the grammar needs more than {MAX_RULES} rules")
        self._work.spend()
        self._bodies.append([])
        self._where.append(self._work.where)
        if key is not None:
            self._known[key] = number
        return number, True

    def define(self, rule: int, body: Iterable[Sequence], *, may_overlap: bool = False) -> None:
        """Set the alternatives of a rule; `may_overlap` leaves those with a common beginning."""
        self._bodies[rule] = list(body)
        self._work.spend(sum(1 + len(sequence) // 16 for sequence in self._bodies[rule]))
        if may_overlap:
            self._may_overlap.add(rule)

    def add(self, body: Iterable[Sequence], *, may_overlap: bool = False) -> int:
        """Add a rule; returns its number."""
        rule, _ = self.reserve()
        self.define(rule, body, may_overlap=may_overlap)
        return rule

    def text(self) -> str:
        """The grammar as GBNF. Raises UsageError if nothing satisfies it or it is not safe."""
        self._drop_endless()
        if not self._bodies[0]:
            raise schema_error("", "nothing can satisfy it, or only an infinite value")
        order, seen = [0], {0}
        for rule in order:  # grows during the iteration
            self._work.where = self._where[rule]
            if rule not in self._may_overlap:
                self._bodies[rule] = self._disambiguated(self._bodies[rule])
            for element in (element for seq in self._bodies[rule] for element in seq):
                if isinstance(element, int) and element not in seen:
                    seen.add(element)
                    order.append(element)
        return "".join(
            f"{_name(rule)} ::= {' | '.join(map(_gbnf, self._bodies[rule]))}\n" for rule in order
        )

    def _drop_endless(self) -> None:
        """Drop every alternative with a rule that no finite text completes."""
        users: dict[int, list[tuple[int, int]]] = {}
        missing: dict[tuple[int, int], int] = {}
        finite: set[int] = set()
        todo = []
        for rule, body in enumerate(self._bodies):
            for index, sequence in enumerate(body):
                needed = {element for element in sequence if isinstance(element, int)}
                missing[rule, index] = len(needed)
                for other in needed:
                    users.setdefault(other, []).append((rule, index))
                if not needed and rule not in finite:
                    finite.add(rule)
                    todo.append(rule)
        while todo:
            for user in users.get(todo.pop(), ()):
                missing[user] -= 1
                if not missing[user] and user[0] not in finite:
                    finite.add(user[0])
                    todo.append(user[0])
        self._bodies = [
            [seq for index, seq in enumerate(body) if not missing[rule, index]]
            for rule, body in enumerate(self._bodies)
        ]

    def _first(self, rule: int) -> tuple[Charset, bool]:
        """The characters that a rule can begin with, and whether it can be empty."""
        known = self._firsts.get(rule)
        if known is None:
            # No rule can begin with itself, as no value does: this only guards the recursion.
            self._firsts[rule] = ((), False)
            ranges: list[tuple[int, int]] = []
            empty = False
            for sequence in self._bodies[rule]:
                letters, may_be_empty = self._beginning(sequence)
                ranges += letters
                empty |= may_be_empty
            known = self._firsts[rule] = (charset.union(ranges), empty)
        return known

    def _beginning(self, sequence: Sequence) -> tuple[Charset, bool]:
        self._work.spend()
        ranges: list[tuple[int, int]] = []
        for element in sequence:
            letters, empty = self._first(element) if isinstance(element, int) else (element, False)
            ranges += letters
            if not empty:
                return charset.union(ranges), False
        return charset.union(ranges), True

    def _disambiguated(self, body: list[Sequence]) -> list[Sequence]:
        """Equivalent alternatives, no two of which begin with the same character."""
        done: list[Sequence] = []
        todo = [list(dict.fromkeys(body))]
        while todo:
            for group in self._groups(todo.pop()):
                if len(group) == 1:
                    done += group
                elif len({sequence[0] for sequence in group}) == 1:
                    done.append((group[0][0], *self._rest(group)))
                elif all(not isinstance(sequence[0], int) for sequence in group):
                    done += self._split_by_letter(group)
                else:
                    todo.append(self._expanded(group))
        return done

    def _groups(self, body: list[Sequence]) -> list[list[Sequence]]:
        """The alternatives in groups; different groups have no first character in common."""
        spans = sorted(
            (low, high, index)
            for index, sequence in enumerate(body)
            for low, high in self._beginning(sequence)[0]
        )
        self._work.spend(len(spans))
        leader = list(range(len(body)))

        def lead(index: int) -> int:
            while leader[index] != index:
                leader[index] = index = leader[leader[index]]
            return index

        reach, before = -1, 0
        for low, high, index in spans:
            if low <= reach:
                leader[lead(index)] = lead(before)
            if high > reach:
                reach, before = high, index
        groups: dict[int, list[Sequence]] = {}
        for index, sequence in enumerate(body):
            groups.setdefault(lead(index), []).append(sequence)
        return list(groups.values())

    def _split_by_letter(self, group: list[Sequence]) -> list[Sequence]:
        """Alternatives that begin with characters, split so that each character begins one."""
        alternatives = []
        firsts = [sequence[0] for sequence in group]
        for members, letters in charset.atoms(firsts).items():  # type: ignore[arg-type]
            rests = [group[member] for member in sorted(members)]
            alternatives.append((letters, *self._rest(rests)))
        return alternatives

    def _rest(self, group: list[Sequence]) -> Sequence:
        """What follows the common first element of the alternatives."""
        rests = dict.fromkeys(sequence[1:] for sequence in group)
        if len(rests) == 1:
            return next(iter(rests))
        key = frozenset(rests)
        if key not in self._merged:
            self._merged[key] = self.add(rests)
            longest = max(len(rest) for rest in rests)
            if len(self._merged) > _MAX_MERGED or longest > _MAX_FOLLOWING:
                raise schema_error(self._work.where, _TOO_ALIKE)
        return (self._merged[key],)

    def _expanded(self, group: list[Sequence]) -> list[Sequence]:
        """The alternatives with each rule that begins one replaced by the rule's alternatives."""
        expanded: list[Sequence] = []
        for sequence in group:
            head, rest = sequence[0], sequence[1:]
            bodies = self._bodies[head] if isinstance(head, int) else [(head,)]
            expanded += [(*body, *rest) for body in bodies]
        self._work.spend(sum(1 + len(sequence) // 8 for sequence in expanded))
        return list(dict.fromkeys(expanded))


def _name(rule: int) -> str:
    return f"r{rule}" if rule else "root"


def _gbnf(sequence: Sequence) -> str:
    """A sequence in GBNF; adjacent characters become one literal."""
    parts: list[str] = []
    letters = ""
    for element in sequence:
        if not isinstance(element, int) and len(element) == 1 and element[0][0] == element[0][1]:
            letters += _escaped(element[0][0])
            continue
        if letters:
            parts.append(f'"{letters}"')
            letters = ""
        parts.append(_name(element) if isinstance(element, int) else _class(element))
    if letters or not parts:
        parts.append(f'"{letters}"')
    return " ".join(parts)


def _class(letters: Charset) -> str:
    spans = (
        _escaped(low) if low == high else f"{_escaped(low)}-{_escaped(high)}"
        for low, high in letters
    )
    return f"[{''.join(spans)}]"


def _escaped(point: int) -> str:
    letter = chr(point)
    if letter.isascii() and (letter.isalnum() or letter in " _.,:;{}()/+"):
        return letter
    if point < 0x100:
        return f"\\x{point:02X}"
    return f"\\u{point:04X}" if point < 0x10000 else f"\\U{point:08X}"
