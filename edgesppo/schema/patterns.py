"""Compile the regular expressions of `pattern` (ECMA 262) to finite automata.

As in JSON Schema, a pattern without anchors matches anywhere in a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesppo.schema import charset
from edgesppo.schema.automaton import AT_END, AT_START, Nfa, determinise
from edgesppo.schema.limits import MAX_PATTERN, schema_error
from edgesppo.schema.pattern_parser import Parser

if TYPE_CHECKING:
    from edgesppo.schema.automaton import Dfa
    from edgesppo.schema.limits import Work
    from edgesppo.schema.pattern_parser import Node


def automaton(pattern: str, work: Work) -> Dfa:
    """The DFA of the texts that a pattern matches. Raises UsageError for unsupported syntax."""
    if len(pattern) > MAX_PATTERN:
        text = f"pattern has {len(pattern)} characters, expected at most {MAX_PATTERN}"
        raise schema_error(work.where, text)
    nfa = Nfa(work)
    begin, end = nfa.state(), nfa.state()
    nfa.add_epsilon(0, begin)
    nfa.add_epsilon(end, 1)
    nfa.add_edge(begin, charset.ANY, begin)
    nfa.add_edge(end, charset.ANY, end)
    _build(nfa, Parser(pattern, work.where).parse(), begin, end)
    return determinise(nfa)


def _build(nfa: Nfa, node: Node, source: int, target: int) -> None:
    """Add states to the NFA that lead from `source` to `target` by the texts of a node."""
    kind = node[0]
    if kind == "set":
        nfa.add_edge(source, node[1], target)  # type: ignore[arg-type]
    elif kind in ("^", "$"):
        nfa.add_epsilon(source, target, AT_START if kind == "^" else AT_END)
    elif kind == "or":
        for part in node[1:]:
            _build(nfa, part, source, target)  # type: ignore[arg-type]
    elif kind == "then":
        for part in node[1:]:
            following = nfa.state()
            _build(nfa, part, source, following)  # type: ignore[arg-type]
            source = following
        nfa.add_epsilon(source, target)
    else:
        _build_repeat(nfa, node, source, target)


def _build_repeat(nfa: Nfa, node: Node, source: int, target: int) -> None:
    _, part, low, high = node
    assert isinstance(low, int)
    for _ in range(low):
        following = nfa.state()
        _build(nfa, part, source, following)  # type: ignore[arg-type]
        source = following
    if high is None:
        loop = nfa.state()
        nfa.add_epsilon(source, loop)
        again = nfa.state()
        _build(nfa, part, loop, again)  # type: ignore[arg-type]
        nfa.add_epsilon(again, loop)
        nfa.add_epsilon(loop, target)
        return
    assert isinstance(high, int)
    for _ in range(high - low):
        nfa.add_epsilon(source, target)
        following = nfa.state()
        _build(nfa, part, source, following)  # type: ignore[arg-type]
        source = following
    nfa.add_epsilon(source, target)
