"""An independent GBNF parser and matcher, to test grammars without llama.cpp.

It follows all possible parses of a text at once, as llama.cpp does, and records the largest
number of open parses: the cost of a grammar. It supports only what edgesppo writes: no groups and
no repetitions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

# A rule is a list of alternatives; an alternative a list of rule names and of character ranges.
Ranges = tuple[tuple[int, int], ...]
Rules = dict[str, list[list["str | Ranges"]]]
Stack = tuple["tuple[str, int, int]", ...]

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|\[((?:[^\]\\]|\\.)*)\]|(\|)|([a-z0-9]+)|(\s+)')
_CHARACTER = re.compile(r"\\x([0-9A-F]{2})|\\u([0-9A-F]{4})|\\U([0-9A-F]{8})|([^\\])", re.DOTALL)

_ENDLESS = 10**9

# Parses of a text that may be open at once; long strings are counted in blocks.
MOST_OPEN = 12


class Reader:
    """Matches texts against a grammar, and generates texts from it.

    `most_open` is the largest number of parses that were open at once.
    """

    def __init__(self, gbnf: str) -> None:
        self._rules: Rules = {}
        for line in gbnf.splitlines():
            name, _, body = line.partition(" ::= ")
            self._rules[name] = _alternatives(body)
        self.most_open = 0

    def reads(self, text: str) -> bool:
        """Whether the grammar matches the whole text."""
        open_ = self._advanced({(("root", -1, 0),)})
        for letter in text:
            read: set[Stack] = set()
            for stack in open_:
                if not stack:
                    continue
                rule, alternative, at = stack[-1]
                element = self._rules[rule][alternative][at]
                if any(low <= ord(letter) <= high for low, high in element):  # type: ignore[misc]
                    read.add((*stack[:-1], (rule, alternative, at + 1)))
            open_ = self._advanced(read)
            self.most_open = max(self.most_open, len(open_))
        return () in open_

    def text(self, rng: random.Random, room: int = 80) -> str:
        """A random text of the grammar, which takes the shortest way out after `room` letters."""
        shortest = self._shortest()
        made: list[str] = []
        todo: list[str | Ranges] = ["root"]
        while todo:
            element = todo.pop()
            if isinstance(element, str):
                choices = self._rules[element]
                if len(made) > room or rng.random() < 0.2:
                    choices = [min(choices, key=lambda one: _length(one, shortest))]
                todo += reversed(rng.choice(choices))
            else:
                low, high = rng.choice(element)
                made.append(chr(rng.randint(low, min(high, low + 200))))
        return "".join(made)

    def _shortest(self) -> dict[str, int]:
        """The length of the shortest text of each rule."""
        found: dict[str, int] = {}
        changed = True
        while changed:
            changed = False
            for name, body in self._rules.items():
                best = min(_length(one, found) for one in body)
                if best < found.get(name, _ENDLESS):
                    found[name], changed = best, True
        return found

    def _advanced(self, stacks: set[Stack]) -> set[Stack]:
        """Expand every stack until it needs a character or is empty."""
        found, seen, todo = set(), set(stacks), list(stacks)
        while todo:
            stack = todo.pop()
            following: list[Stack] = []
            if not stack:
                found.add(stack)
                continue
            rule, alternative, at = stack[-1]
            if alternative < 0:
                following = [(*stack[:-1], (rule, n, 0)) for n in range(len(self._rules[rule]))]
            elif at == len(self._rules[rule][alternative]):
                following = [stack[:-1]]
            else:
                element = self._rules[rule][alternative][at]
                if isinstance(element, str):
                    last = at + 1 == len(self._rules[rule][alternative])
                    behind = () if last else ((rule, alternative, at + 1),)
                    following = [(*stack[:-1], *behind, (element, -1, 0))]
                else:
                    found.add(stack)
            todo += [one for one in following if one not in seen]
            seen.update(following)
        return found


def _length(alternative: list[str | Ranges], shortest: dict[str, int]) -> int:
    return sum(shortest.get(part, _ENDLESS) if isinstance(part, str) else 1 for part in alternative)


def _alternatives(body: str) -> list[list[str | Ranges]]:
    found: list[list[str | Ranges]] = [[]]
    at = 0
    while at < len(body):
        token = _TOKEN.match(body, at)
        assert token, f"not GBNF: {body[at : at + 40]}"
        at = token.end()
        literal, letters, bar, name, _ = token.groups()
        if literal is not None:
            found[-1] += [((point, point),) for point in _points(literal)]
        elif letters is not None:
            found[-1].append(_ranges(letters))
        elif bar:
            found.append([])
        elif name:
            found[-1].append(name)
    return found


def _points(text: str) -> list[int]:
    return [
        ord(match[4]) if match[4] else int(match[1] or match[2] or match[3], 16)
        for match in _CHARACTER.finditer(text)
    ]


def _ranges(text: str) -> Ranges:
    parts = [match[0] for match in _CHARACTER.finditer(text)]
    found = []
    while parts:
        low = high = _points(parts.pop(0))[0]
        if len(parts) > 1 and parts[0] == "-":
            high = _points(parts[1])[0]
            del parts[:2]
        found.append((low, high))
    return tuple(found)
