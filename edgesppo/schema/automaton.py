"""Owns finite automata over characters: an NFA that is built, the DFA that it is made into.

A DFA is what keeps a grammar cheap: after any text exactly one of its states is alive, however
a pattern was written. Knows nothing of patterns, JSON or grammars.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo.schema import charset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.schema.charset import Charset
    from edgesppo.schema.limits import Work

ALWAYS, AT_START, AT_END = 0, 1, 2  # when a step that reads nothing may be taken


@dataclass
class Nfa:
    """States are numbers; state 0 is the start, state 1 the end."""

    work: Work
    edges: list[list[tuple[Charset, int]]] = field(default_factory=lambda: [[], []])
    steps: list[list[tuple[int, int]]] = field(default_factory=lambda: [[], []])

    def state(self) -> int:
        """A new state."""
        self.work.spend()
        self.edges.append([])
        self.steps.append([])
        return len(self.edges) - 1

    def reads(self, source: int, letters: Charset, target: int) -> None:
        """From `source` to `target` by one of the letters."""
        self.edges[source].append((letters, target))

    def passes(self, source: int, target: int, when: int = ALWAYS) -> None:
        """From `source` to `target` by nothing."""
        self.steps[source].append((target, when))


@dataclass(frozen=True)
class Dfa:
    """`edges[state]` are (characters, next state), pairwise disjoint; the start is 0.

    Every state can still reach an end, unless there is no text at all: then `edges` is empty.
    """

    edges: tuple[tuple[tuple[Charset, int], ...], ...]
    ends: frozenset[int]


def determinised(nfa: Nfa) -> Dfa:
    """The same texts, read by one state at a time."""
    first = _closure(nfa, [0], {AT_START})
    # The start keeps a number of its own, also where the same states are come back to.
    numbers: dict[frozenset[int] | None, int] = {None: 0}
    todo: list[frozenset[int] | None] = [None]
    edges, ends = [], set()
    while todo:
        key = todo.pop(0)
        here, states = numbers[key], first if key is None else key
        if 1 in _closure(nfa, states, {AT_END} if here else {AT_START, AT_END}):
            ends.add(here)
        moves = [edge for state in states for edge in nfa.edges[state]]
        nfa.work.spend(1 + len(states) + len(moves))
        out: dict[int, list[tuple[int, int]]] = {}
        for members, letters in charset.atoms([letters for letters, _ in moves]).items():
            following = _closure(nfa, {moves[member][1] for member in members}, set())
            if following not in numbers:
                numbers[following] = len(numbers)
                todo.append(following)
            out.setdefault(numbers[following], []).extend(letters)
        edges.append([(charset.union(ranges), target) for target, ranges in out.items()])
    return _trimmed(edges, ends)


def _closure(nfa: Nfa, states: Iterable[int], when: set[int]) -> frozenset[int]:
    found, todo = set(states), list(states)
    while todo:
        for target, needed in nfa.steps[todo.pop()]:
            nfa.work.spend()
            if (needed == ALWAYS or needed in when) and target not in found:
                found.add(target)
                todo.append(target)
    return frozenset(found)


def intersected(a: Dfa, b: Dfa, work: Work) -> Dfa:
    """The texts that both read."""
    if not a.edges or not b.edges:
        return Dfa((), frozenset())
    numbers, todo, edges, ends = {(0, 0): 0}, [(0, 0)], [], set()
    while todo:
        pair = todo.pop(0)
        if pair[0] in a.ends and pair[1] in b.ends:
            ends.add(numbers[pair])
        out = []
        for letters_a, next_a in a.edges[pair[0]]:
            for letters_b, next_b in b.edges[pair[1]]:
                work.spend()
                both = charset.common(letters_a, letters_b)
                if not both:
                    continue
                if (next_a, next_b) not in numbers:
                    numbers[next_a, next_b] = len(numbers)
                    todo.append((next_a, next_b))
                out.append((both, numbers[next_a, next_b]))
        edges.append(out)
    return _trimmed(edges, ends)


def of_length(low: int, high: int | None, work: Work) -> Dfa:
    """All texts of `low` to `high` characters."""
    top = low if high is None else high
    work.spend(top)
    edges: list[list[tuple[Charset, int]]] = [[(charset.ANY, n + 1)] for n in range(top)]
    edges.append([(charset.ANY, top)] if high is None else [])
    return _trimmed(edges, set(range(low, top + 1)))


def explored(start: object, step: Step, is_end: IsEnd, letters: str, work: Work) -> Dfa:
    """The DFA that a function describes: `step(state, letter)` is the next state, or None."""
    numbers: dict[object, int] = {start: 0}
    todo, edges, ends = [start], [], set()
    while todo:
        state = todo.pop(0)
        work.spend()
        if is_end(state):
            ends.add(numbers[state])
        out: dict[int, str] = {}
        for letter in letters:
            following = step(state, letter)
            if following is None:
                continue
            if following not in numbers:
                numbers[following] = len(numbers)
                todo.append(following)
            out[numbers[following]] = out.get(numbers[following], "") + letter
        edges.append([(charset.of(found), target) for target, found in out.items()])
    return _trimmed(edges, ends)


def _trimmed(edges: list[list[tuple[Charset, int]]], ends: set[int]) -> Dfa:
    """Without the states from which no end can be reached."""
    sources: dict[int, list[int]] = {}
    for source, out in enumerate(edges):
        for _, target in out:
            sources.setdefault(target, []).append(source)
    alive, todo = set(ends), list(ends)
    while todo:
        for source in sources.get(todo.pop(), ()):
            if source not in alive:
                alive.add(source)
                todo.append(source)
    if 0 not in alive:
        return Dfa((), frozenset())
    numbers = {state: number for number, state in enumerate(sorted(alive))}
    kept = tuple(
        tuple((letters, numbers[target]) for letters, target in edges[state] if target in alive)
        for state in sorted(alive)
    )
    return Dfa(kept, frozenset(numbers[end] for end in ends))


if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[object, str], object]
    IsEnd = Callable[[object], bool]
