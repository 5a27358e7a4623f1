"""Generate training dialogues: random turns, some of which ask for what was told before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from edgesppo.dev.train_demo import facts, memory, outside, product, sums, talk, wording
from edgesppo.dev.train_demo.values import HELD_OUT

if TYPE_CHECKING:
    import random


class Turn(NamedTuple):
    """A user's message and the model's answer."""

    user: str
    model: str


SYSTEM = (
    "(be|please be|always be) (brief|polite|kind|friendly|helpful|concise|honest|clear)",
    "you are a (helpful|friendly|polite|concise|kind|tiny|good) "
    "(assistant|model|bot|teacher|guide)",
    "(answer|reply) (in one sentence|briefly|politely|in english|clearly|in a few words|shortly)",
    "you are (edgesppo|an expert|a demo|a tiny demo|the assistant of a small shop|a careful "
    "assistant)",
    "keep (it|your answers|answers) (short|simple|friendly)",
    "(do not|never) (lie|guess|use long words|say too much)",
    "you (help|assist|answer) (users|people|customers) (of edgesppo|with questions|with "
    "sums|politely)",
    "(think before you answer|take your time|use simple words|speak like a teacher|talk like a "
    "friend)",
    "the user is a (beginner|child|student|developer|friend)",
    "today we talk about (sums|facts|edgesppo|many things)",
    "you are a helpful assistant. (be brief|answer in one sentence|keep it short|be polite)",
)
Asked = tuple[tuple[str, ...], Mapping[str, str], str]
FACTS: list[Asked] = list(facts.facts())
PRODUCT: list[Asked] = list(product.product())
TALK: list[Asked] = [
    (asks, {}, answer) for asks, answer in (*talk.GREETINGS, *talk.FAREWELLS, *talk.IDENTITY)
]
WHO: Asked = (talk.IDENTITY[0][0], {}, talk.WHO)
HELLO: Asked = (talk.GREETINGS[0][0], {}, talk.GREETINGS[0][1])


def grammars() -> Iterator[str]:
    """Every grammar from which a user's message can be made."""
    for asks, _, _ in (*FACTS, *PRODUCT, *TALK):
        yield from asks
    yield from sums.GRAMMARS
    yield from outside.ASKS
    for kind in memory.KINDS.values():
        yield from kind.tells
        yield from kind.asks


def _ask(asked: Asked, rng: random.Random, noise: bool = True) -> Turn:
    asks, slots, answer = asked
    text = wording.expand(rng.choice(asks), rng, slots)
    if rng.random() < 0.25:
        text = text.lower()
    return Turn(wording.decorate(text, rng) if noise else text, answer)


def _plain(asked: Asked, rng: random.Random) -> Turn:
    """A turn of small talk, such as a greeting: varied in case and punctuation, without lead-in."""
    asks, slots, answer = asked
    text = wording.expand(rng.choice(asks), rng, slots).rstrip()
    text += rng.choice(("", "", ".", "!", "!", "!!")) if not text.endswith("?") else ""
    return Turn(text[:1].upper() + text[1:] if rng.random() < 0.65 else text, answer)


def _outside(rng: random.Random) -> Turn:
    grammar = rng.choice(outside.ASKS)
    slots = {
        "n": str(rng.randint(2, 500)),
        "m": str(rng.randint(2, 99)),
        "y": str(rng.randint(1000, 2030)),
    }
    text = wording.expand(grammar, rng, slots)
    while "{w}" in text:
        text = text.replace("{w}", memory.value("food", rng), 1)
    return Turn(wording.decorate(text, rng), outside.REFUSAL)


def _sum(rng: random.Random, noise: bool = True) -> Turn:
    grammar, slots, answer = sums.sum_turn(rng)
    return _ask(((grammar,), slots, answer), rng, noise)


def question(rng: random.Random) -> Turn:
    """A question that can be answered without earlier turns."""
    roll = rng.random()
    if roll < 0.28:
        return _ask(rng.choice(FACTS), rng)
    if roll < 0.52:
        return _sum(rng)
    if roll < 0.53:
        grammar, slots, answer = sums.too_big_turn(rng)
        return _ask(((grammar,), slots, answer), rng)
    if roll < 0.80:
        return _ask(rng.choice(PRODUCT), rng)
    if roll < 0.88:
        return _outside(rng)
    return small_talk(rng)


def small_talk(rng: random.Random) -> Turn:
    """A greeting, thanks, or a question about the model itself."""
    roll = rng.random()
    if roll < 0.2:
        return _plain(HELLO, rng)
    if roll < 0.4:
        return _ask(WHO, rng)
    return (_ask if rng.random() < 0.4 else _plain)(rng.choice(TALK), rng)


class Told:
    """What the user has told so far in a dialogue: (kind, animal if a pet) -> value."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.values: dict[tuple[str, str], str] = {}

    def tell(self) -> Turn:
        """A turn in which the user tells one thing, sometimes two."""
        user, model = self._one()
        if self.rng.random() < 0.15:
            more, ack = self._one()
            user, model = (
                f"{user}{self.rng.choice((' and ', ', and ', '. '))}{more}",
                f"{model} {ack}",
            )
        return Turn(self._finish(user), model)

    def _one(self) -> tuple[str, str]:
        rng = self.rng
        fresh = [kind for kind in memory.KINDS if kind == "pet" or (kind, "") not in self.values]
        kind = rng.choice(fresh)
        key = (kind, rng.choice(memory.PETS) if kind == "pet" else "")
        value = memory.value(kind, rng)
        if rng.random() < 0.08:
            value = value.lower()
        self.values[key] = value
        slots = {"v": value, "k": key[1]}
        text = wording.expand(rng.choice(memory.KINDS[kind].tells), rng, slots)
        return text, memory.KINDS[kind].ack.format(**slots)

    def _finish(self, text: str) -> str:
        text = wording.decorate(text, self.rng, question=False)
        return text if not text.isupper() else text.capitalize()

    def ask(self) -> Turn:
        """A turn in which the user asks for something told before or, rarely, never told."""
        rng = self.rng
        known = bool(self.values) and rng.random() < 0.88
        if known:
            key = rng.choice(list(self.values))
        else:
            kind = rng.choice(list(memory.KINDS))
            key = (kind, rng.choice(memory.PETS) if kind == "pet" else "")
        kind_of = memory.KINDS[key[0]]
        text = wording.expand(rng.choice(kind_of.asks), rng, {"k": key[1]})
        answer = kind_of.answer if key in self.values else kind_of.unknown
        slots = {"v": self.values.get(key, ""), "k": key[1]}
        return Turn(wording.decorate(text, rng), answer.format(**slots))


def held_out_words(turns: Iterable[Turn]) -> frozenset[str]:
    """The held-out values that occur as a whole word in these turns."""
    text = " ".join(f"{turn.user} {turn.model}" for turn in turns).lower()
    return HELD_OUT.intersection(re.findall(r"[a-z]+|\d+", text))


def dialogue(rng: random.Random) -> list[Turn]:
    """A random dialogue without held-out values: questions, or things told and asked for later."""
    while True:
        turns = _dialogue(rng)
        if not held_out_words(turns):
            return turns


def _dialogue(rng: random.Random) -> list[Turn]:
    roll = rng.random()
    if roll < 0.06:
        return [_sum(rng, noise=rng.random() < 0.2) for _ in range(rng.randint(6, 12))]
    turns = _plain_turns(rng) if roll < 0.42 else _memory_turns(rng)
    if rng.random() < 0.15:
        system = wording.expand(rng.choice(SYSTEM), rng)
        system = (system[:1].upper() + system[1:] if rng.random() < 0.9 else system) + rng.choice(
            (".", ".", ".", "")
        )
        turns[0] = Turn(f"{system}\n\n{turns[0].user}", turns[0].model)
    return turns


def _plain_turns(rng: random.Random) -> list[Turn]:
    count = 1 if rng.random() < 0.6 else rng.randint(2, 5)
    return [question(rng) for _ in range(count)]


def _memory_turns(rng: random.Random) -> list[Turn]:
    told = Told(rng)
    turns = [small_talk(rng)] if rng.random() < 0.1 else []
    turns += [told.tell() for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
    for _ in range(rng.choice((1, 2, 2, 3))):
        turns += [question(rng) for _ in range(rng.choice((0, 0, 1, 1, 2, 2, 3)))]
        turns.append(told.ask())
        if rng.random() < 0.2:
            turns.append(told.tell())
    return turns
