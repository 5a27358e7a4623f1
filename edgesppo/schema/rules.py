"""Owns the grammar in the making: rules of characters and references, and their GBNF text.

What is handed to llama.cpp must not be able to hurt it: its parser and its search for left
recursion call themselves, and a grammar whose alternatives begin alike can double the positions
it keeps at every step. So `text` first drops what can never be completed, then merges
alternatives that begin alike until one character tells them apart, and writes rules without
groups or repetitions. Knows nothing of JSON or schemas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from edgesppo.schema import charset
from edgesppo.schema.limits import MAX_RULES, refused

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from edgesppo.schema.charset import Charset
    from edgesppo.schema.limits import Work

# The number of a rule, or a set of characters of which one stands here.
Element: TypeAlias = "int | Charset"
Sequence: TypeAlias = tuple[Element, ...]

_MAX_MERGED = 4_000  # places where alternatives were merged
_MAX_BEHIND = 5_000  # what may still follow such a place
_TOO_ALIKE = (
    "its alternatives begin alike for too long to be told apart; give each a first property with "
    "a const of its own, or merge them"
)


def literal(text: str) -> Sequence:
    """The characters of a text, one after the other."""
    return tuple(((ord(letter), ord(letter)),) for letter in text)


class Rules:
    """Rules by number; rule 0 is the root. A rule is a list of alternative sequences."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._bodies: list[list[Sequence]] = []
        self._where: list[str] = []
        self._known: dict[Hashable, int] = {}
        self._settled: set[int] = set()
        self._firsts: dict[int, tuple[Charset, bool]] = {}
        self._merged: dict[frozenset[Sequence], int] = {}

    def reserve(self, key: Hashable = None) -> tuple[int, bool]:
        """A rule's number, and whether it is new; the same key gives the same rule."""
        if key is not None and key in self._known:
            return self._known[key], False
        number = len(self._bodies)
        if number >= MAX_RULES:
            raise refused(self._work.where, f"the grammar needs more than {MAX_RULES} rules")
        self._work.spend()
        self._bodies.append([])
        self._where.append(self._work.where)
        if key is not None:
            self._known[key] = number
        return number, True

    def define(self, rule: int, body: Iterable[Sequence], *, settled: bool = False) -> None:
        """Give a rule its alternatives. `settled`: they may begin alike, that was thought of."""
        self._bodies[rule] = list(body)
        self._work.spend(sum(1 + len(sequence) // 16 for sequence in self._bodies[rule]))
        if settled:
            self._settled.add(rule)

    def add(self, body: Iterable[Sequence], *, settled: bool = False) -> int:
        """A new rule."""
        rule, _ = self.reserve()
        self.define(rule, body, settled=settled)
        return rule

    def text(self) -> str:
        """The grammar as GBNF; UsageError when nothing fits it or it cannot be made safe."""
        self._drop_endless()
        if not self._bodies[0]:
            raise refused("", "nothing can satisfy it, or only something that has no end")
        order, seen = [0], {0}
        for rule in order:  # grows while it is walked
            self._work.where = self._where[rule]
            if rule not in self._settled:
                self._bodies[rule] = self._told_apart(self._bodies[rule])
            for element in (element for seq in self._bodies[rule] for element in seq):
                if isinstance(element, int) and element not in seen:
                    seen.add(element)
                    order.append(element)
        return "".join(
            f"{_name(rule)} ::= {' | '.join(map(_written, self._bodies[rule]))}\n" for rule in order
        )

    def _drop_endless(self) -> None:
        """Drop every alternative that leads to a rule that no finite text completes."""
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
            # Kept from going in circles: no rule can begin with itself, values never do.
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

    def _told_apart(self, body: list[Sequence]) -> list[Sequence]:
        """The same alternatives, no two of which begin with the same character."""
        done: list[Sequence] = []
        todo = [list(dict.fromkeys(body))]
        while todo:
            for group in self._alike(todo.pop()):
                if len(group) == 1:
                    done += group
                elif len({sequence[0] for sequence in group}) == 1:
                    done.append((group[0][0], *self._rest(group)))
                elif all(not isinstance(sequence[0], int) for sequence in group):
                    done += self._by_letter(group)
                else:
                    todo.append(self._opened(group))
        return done

    def _alike(self, body: list[Sequence]) -> list[list[Sequence]]:
        """The alternatives in groups; those of different groups share no first character."""
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

    def _by_letter(self, group: list[Sequence]) -> list[Sequence]:
        """Alternatives that begin with characters, split by which of them a character begins."""
        found = []
        firsts = [sequence[0] for sequence in group]
        for members, letters in charset.atoms(firsts).items():  # type: ignore[arg-type]
            rests = [group[member] for member in sorted(members)]
            found.append((letters, *self._rest(rests)))
        return found

    def _rest(self, group: list[Sequence]) -> Sequence:
        """What follows the first element of the alternatives."""
        rests = dict.fromkeys(sequence[1:] for sequence in group)
        if len(rests) == 1:
            return next(iter(rests))
        key = frozenset(rests)
        if key not in self._merged:
            self._merged[key] = self.add(rests)
            longest = max(len(rest) for rest in rests)
            if len(self._merged) > _MAX_MERGED or longest > _MAX_BEHIND:
                raise refused(self._work.where, _TOO_ALIKE)
        return (self._merged[key],)

    def _opened(self, group: list[Sequence]) -> list[Sequence]:
        """Every rule that an alternative begins with is replaced by what it stands for."""
        found: list[Sequence] = []
        for sequence in group:
            head, rest = sequence[0], sequence[1:]
            bodies = self._bodies[head] if isinstance(head, int) else [(head,)]
            found += [(*body, *rest) for body in bodies]
        self._work.spend(sum(1 + len(sequence) // 8 for sequence in found))
        return list(dict.fromkeys(found))


def _name(rule: int) -> str:
    return f"r{rule}" if rule else "root"


def _written(sequence: Sequence) -> str:
    """A sequence in GBNF; characters in a row become one literal."""
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
