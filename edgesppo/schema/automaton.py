"""Finite automata over characters: NFAs, and the DFAs that they are converted to.

A DFA keeps a grammar cheap: after any text exactly one of its states is active, however the pattern
was written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesppo.schema import charset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgesppo.schema.charset import Charset
    from edgesppo.schema.limits import Work

ALWAYS, AT_START, AT_END = 0, 1, 2  # where in a text an epsilon transition is allowed


@dataclass
class Nfa:
    """An NFA under construction. States are numbers; state 0 is the start, state 1 the end."""

    work: Work
    edges: list[list[tuple[Charset, int]]] = field(default_factory=lambda: [[], []])
    epsilons: list[list[tuple[int, int]]] = field(default_factory=lambda: [[], []])

    def state(self) -> int:
        """Add a state; returns its number."""
        self.work.spend()
        self.edges.append([])
        self.epsilons.append([])
        return len(self.edges) - 1

    def add_edge(self, source: int, letters: Charset, target: int) -> None:
        """Add a transition that reads one of the letters."""
        self.edges[source].append((letters, target))

    def add_epsilon(self, source: int, target: int, when: int = ALWAYS) -> None:
        """Add a transition that reads nothing, allowed at `when`."""
        self.epsilons[source].append((target, when))


@dataclass(frozen=True)
class Dfa:
    """A DFA: `edges[state]` are pairs of disjoint characters and the next state; 0 is the start.

    An end can be reached from every state. If there is no text at all, `edges` is empty.
    """

    edges: tuple[tuple[tuple[Charset, int], ...], ...]
    ends: frozenset[int]


def determinise(nfa: Nfa) -> Dfa:
    """The DFA that accepts the same texts as an NFA."""
    first = _closure(nfa, [0], {AT_START})
    # The start has a number of its own, even if its set of states occurs again later.
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
    """All states reachable from `states` by epsilon transitions allowed at `when`."""
    reached, todo = set(states), list(states)
    while todo:
        for target, needed in nfa.epsilons[todo.pop()]:
            nfa.work.spend()
            if (needed == ALWAYS or needed in when) and target not in reached:
                reached.add(target)
                todo.append(target)
    return frozenset(reached)


def intersection(a: Dfa, b: Dfa, work: Work) -> Dfa:
    """The DFA of the texts that both accept."""
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
                both = charset.intersection(letters_a, letters_b)
                if not both:
                    continue
                if (next_a, next_b) not in numbers:
                    numbers[next_a, next_b] = len(numbers)
                    todo.append((next_a, next_b))
                out.append((both, numbers[next_a, next_b]))
        edges.append(out)
    return _trimmed(edges, ends)


def of_length(low: int, high: int | None, work: Work) -> Dfa:
    """The DFA of all texts of `low` to `high` characters; None for no upper limit."""
    top = low if high is None else high
    work.spend(top)
    edges: list[list[tuple[Charset, int]]] = [[(charset.ANY, n + 1)] for n in range(top)]
    edges.append([(charset.ANY, top)] if high is None else [])
    return _trimmed(edges, set(range(low, top + 1)))


def from_function(start: object, step: Step, is_end: IsEnd, letters: str, work: Work) -> Dfa:
    """The DFA described by functions: `step(state, letter)` returns the next state, or None."""
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
        edges.append([(charset.of(read), target) for target, read in out.items()])
    return _trimmed(edges, ends)


def _trimmed(edges: list[list[tuple[Charset, int]]], ends: set[int]) -> Dfa:
    """The DFA without the states from which no end can be reached."""
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
    trimmed = tuple(
        tuple((letters, numbers[target]) for letters, target in edges[state] if target in alive)
        for state in sorted(alive)
    )
    return Dfa(trimmed, frozenset(numbers[end] for end in ends))


if TYPE_CHECKING:
    from collections.abc import Callable

    Step = Callable[[object, str], object]
    IsEnd = Callable[[object], bool]
