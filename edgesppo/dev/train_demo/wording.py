"""Wordings of a question: a small grammar of alternatives, and typical noise of typed text.

A grammar is plain text in which `(a|b|)` means one of the alternatives and `{slot}` a value:
"(what is|tell me) the capital of {x}".
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

Node = Union[str, "tuple[tuple[Node, ...], ...]"]

LEAD_INS = (
    "hey, ",
    "hi, ",
    "hello, ",
    "ok, ",
    "okay, ",
    "so, ",
    "well, ",
    "um, ",
    "please, ",
    "now ",
    "quick question: ",
    "a question: ",
    "one more question: ",
    "question: ",
    "next: ",
    "and ",
    "tell me, ",
    "please tell me: ",
    "say, ",
    "i want to know: ",
    "i wonder, ",
    "just curious: ",
    "one thing: ",
    "another one: ",
    "listen, ",
    "great. ",
    "thanks. ",
    "nice. ",
    "good. ",
    "i have a question. ",
    "can you help me? ",
    "help me please: ",
    "let me ask you something: ",
    "i was wondering: ",
    "do you know this? ",
    "maybe you know: ",
    "sorry, ",
    "alright, ",
)
TAILS = (
    " please",
    " thanks",
    ", please",
    ", thanks",
    " now",
    " then",
    " for me",
    " exactly",
    " again",
    " by the way",
    ", do you know",
    ", can you tell me",
    " really",
    " anyway",
)
ENDS = ("?", "?", "?", "?", "", "", ".", "??", " ?", "!", "?!")


@cache
def parse(grammar: str) -> tuple[Node, ...]:
    """Parse a grammar to nested tuples: a string is a literal, a tuple holds alternatives."""
    nodes, end = _parse_sequence(grammar, 0)
    if end != len(grammar):
        raise ValueError(f"unbalanced parenthesis at {end} in {grammar!r}")
    return nodes


def _parse_sequence(text: str, at: int) -> tuple[tuple[Node, ...], int]:
    nodes: list[Node] = []
    while at < len(text) and text[at] not in "|)":
        if text[at] == "(":
            options: list[tuple[Node, ...]] = []
            while text[at] in "(|":
                option, at = _parse_sequence(text, at + 1)
                options.append(option)
                if at >= len(text):
                    raise ValueError(f"parenthesis never closed in {text!r}")
            nodes.append(tuple(options))
            at += 1
        else:
            stop = next((i for i in range(at, len(text)) if text[i] in "(|)"), len(text))
            nodes.append(text[at:stop])
            at = stop
    return tuple(nodes), at


def expand(grammar: str, rng: random.Random, slots: Mapping[str, str] | None = None) -> str:
    """A random text of the grammar, its slots filled in."""
    text = re.sub(r" +", " ", _expand(parse(grammar), rng)).strip()
    for name, value in (slots or {}).items():
        text = text.replace("{" + name + "}", value)
    return text


def _expand(nodes: tuple[Node, ...], rng: random.Random) -> str:
    return "".join(
        node if isinstance(node, str) else _expand(rng.choice(node), rng) for node in nodes
    )


def plain(text: str) -> str:
    """Reduce a text to its words, numbers and signs: lower case, single spaces."""
    return " ".join(re.sub(r"[^a-z0-9+=\-_]", " ", text.lower().replace("'", "")).split())


_SLOTS = {
    **dict.fromkeys(("a", "b"), r"(?:\d+|[a-z]+)"),
    **dict.fromkeys(("n", "m", "y"), r"(?:\d+|[a-z]+)"),
    "op": "(?:plus|minus)",
    "sign": r"[+\-]",
}


def pattern(grammar: str) -> str:
    """A regular expression for `plain` texts of the grammar; a slot matches 1 or 2 words."""
    return _pattern(parse(grammar))


def _pattern(nodes: tuple[Node, ...]) -> str:
    parts: list[str] = []
    for node in nodes:
        if not isinstance(node, str):
            parts.append("(?:" + "|".join(_pattern(option) for option in node) + ")")
            continue
        for i, piece in enumerate(re.split(r"\{(\w+)\}", node)):
            parts.append(_SLOTS.get(piece, r"\b\w+(?: \w+)?\b") if i % 2 else _literal(piece))
    return "".join(parts)


def _literal(text: str) -> str:
    """A regular expression for a literal; what `plain` drops matches optional spaces."""
    kept = re.sub(r"[^a-z0-9+=\-_]+", " ", text.lower().replace("'", ""))
    return " *".join(re.escape(word) for word in kept.split(" "))


def decorate(text: str, rng: random.Random, *, question: bool = True) -> str:
    """Add noise, as people type; a statement keeps its words, which the model has to copy."""
    if question and rng.random() < 0.22:
        text += rng.choice(TAILS)
    if rng.random() < 0.25:
        text = rng.choice(LEAD_INS) + text
    if question and rng.random() < 0.12:
        text = _typo(text, rng)
    ends: Sequence[str] = ENDS if question else (".", ".", ".", "!", "", "")
    text = text.rstrip("?.! ") + rng.choice(ends)
    roll = rng.random()
    if roll < 0.60:
        return text[:1].upper() + text[1:]
    if roll < 0.985:
        return text
    return text.upper()


def _typo(text: str, rng: random.Random) -> str:
    """Add one typo to a longer word, or leave out a short one."""
    words = text.split(" ")
    if rng.random() < 0.4:
        short = [i for i, word in enumerate(words) if word in _DROPPABLE]
        if short:
            del words[rng.choice(short)]
        return " ".join(words)
    long = [
        i for i, word in enumerate(words) if len(word) > 4 and word.islower() and word.isalpha()
    ]
    if long:
        i = rng.choice(long)
        words[i] = _slip(words[i], rng)
    return " ".join(words)


_DROPPABLE = frozenset(("the", "a", "an", "is", "do", "does", "of", "me", "are", "to", "in"))


def _slip(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
