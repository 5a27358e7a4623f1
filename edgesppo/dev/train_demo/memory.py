"""What a user may tell about themselves and ask for later in the dialogue.

Values come from long lists and from invented words, so that the model must copy, not recall.
`HELD_OUT` values never occur: the evaluation's dialogues are made of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.dev.train_demo.values import (
    CITIES,
    COLOURS,
    ENDS,
    FOODS,
    HELD_OUT,
    JOBS,
    MIDDLES,
    NAMES,
    PET_NAMES,
    STARTS,
)

if TYPE_CHECKING:
    import random

PETS = ("dog", "cat", "horse", "rabbit", "parrot", "hamster", "bird", "fish", "turtle", "pony")


@dataclass(frozen=True)
class Kind:
    """One kind of thing that can be told; {v} stands for its value, {k} for a pet's animal."""

    tells: tuple[str, ...]
    ack: str
    asks: tuple[str, ...]
    answer: str
    unknown: str


_CAN = "(can|could) you (please |)(tell me|remember)"
KINDS: dict[str, Kind] = {
    "name": Kind(
        (
            "(my name is|my name's|i am|i'm|call me|you can call me|please call me|i am "
            "called|the name is|people call me|my friends call me|this is|they call me|it is) {v}",
            "(hello|hi|hey|good morning|good evening|well), (my name is|i am|i'm|this is|i am "
            "called) {v}",
            "{v} is my name",
            "(by the way, |so |and |oh, |)(my name is|i am|i'm|i am called) {v}",
            "(hello|hi|hey)! (my name is|i am|i'm|this is|i am called) {v}",
            "let me introduce myself: (my name is|i am|i'm) {v}",
            "(remember|please remember|note|do not forget) (that |)my name is {v}",
            "{v} here",
            "my (first |)name is {v}",
        ),
        "Nice to meet you, {v}.",
        (
            "(what is|what's|whats|what was|tell me|say|give me) my name",
            "who am i",
            f"{_CAN} (my name|what my name is|who i am)",
            "do you (know|remember|recall) (my name|who i am|what i am called|what my name is)",
            "(how am i|what am i) called",
            "(what|which) name did i (tell you|give you|say)",
            "(what|how) did i say (my name is|my name was|i am called)",
            "and (what is my name|who am i)",
            "have you forgotten my name",
            "my name (is|was)",
            "did i tell you my name",
            "(what name do i have|which name is mine)",
            "say (my name|who i am)",
            "you know my name, (right|don't you)",
            "what do (people|they|my friends) call me",
            "i forgot my (own |)name. what is it",
        ),
        "Your name is {v}.",
        "You have not told me your name.",
    ),
    "colour": Kind(
        (
            "my (favourite|favorite) (colour|color) is {v}",
            "(i like|i love) {v} (best|most|more than any other colour|more than any other color)",
            "{v} is my (favourite|favorite) (colour|color)",
            "(by the way, |also, |and |)my (favourite|favorite) (colour|color) is {v}",
            "the (colour|color) i (like|love) (most|best) is {v}",
            "of all (colours|colors) i like {v} best",
            "(remember|note|do not forget) (that |)my (favourite|favorite) (colour|color) is {v}",
            "(i prefer|i like) the (colour|color) {v}",
        ),
        "I will remember that your favourite colour is {v}.",
        (
            "(what is|what's|whats|what was|tell me) my (favourite|favorite) (colour|color)",
            "(which|what) (colour|color) (do i like|do i love|do i prefer|is my favourite|is my "
            "favorite)( most| best|)",
            f"{_CAN} my (favourite|favorite) (colour|color)",
            "do you (know|remember|recall) (my (favourite|favorite) (colour|color)|which "
            "(colour|color) i like)",
            "(which|what) (colour|color) did i (say i like|tell you|mention|say)",
            "my (favourite|favorite) (colour|color) (is|was)",
            "and my (favourite|favorite) (colour|color)",
            "did i tell you my (favourite|favorite) (colour|color)",
        ),
        "Your favourite colour is {v}.",
        "You have not told me your favourite colour.",
    ),
    "city": Kind(
        (
            "(i live|i am living|i'm living|we live) in {v}",
            "my (home|home town|city|town) is {v}",
            "(i come|i am|i'm) from {v}",
            "(by the way, |also, |and |)i live in {v}",
            "{v} is (my home|where i live|my city|my home town)",
            "my (house|flat|home) is in {v}",
            "(remember|note|do not forget) (that |)i live in {v}",
            "(i moved|i have moved) to {v}",
            "the (city|town) i live in is {v}",
        ),
        "I will remember that you live in {v}.",
        (
            "where do i live",
            "(in |)(which|what) (city|town|place) (do i live|do i live in|am i living in|am i "
            "from|is my home)",
            "where (am i from|is my home|do i come from|is my house|is my flat)",
            f"{_CAN} where i live",
            "do you (know|remember|recall) (where i live|my city|my town|where i am from|which "
            "city i live in)",
            "(what is|what's|tell me) (my city|my town|my home town|the city i live in|the town "
            "i live in)",
            "where did i say (i live|that i live|i am from)",
            "(which|what) (city|town) did i (mention|tell you|say)",
            "did i tell you where i live",
        ),
        "You live in {v}.",
        "You have not told me where you live.",
    ),
    "pet": Kind(
        (
            "(i have|i've got|we have|i own) a {k} (called|named) {v}",
            "my {k} is (called|named) {v}",
            "(my {k}'s name|the name of my {k}) is {v}",
            "{v} is (my {k}|the name of my {k}|my {k}'s name)",
            "(by the way, |also, |and |)my {k} is (called|named) {v}",
            "i have a {k}. (its|his|her) name is {v}",
            "(remember|note|do not forget) (that |)my {k} is called {v}",
            "i call my {k} {v}",
            "i bought a {k} and (called|named) (it|him|her) {v}",
        ),
        "{v} is a nice name for a {k}.",
        (
            "(what is|what's|how is) my {k} (called|named)",
            "(what is|what's|whats|tell me) (my {k}'s name|the name of my {k})",
            f"{_CAN} (my {{k}}'s name|the name of my {{k}}|what my {{k}} is called)",
            "do you (know|remember|recall) (my {k}'s name|the name of my {k}|what my {k} is "
            "called|my {k})",
            "(which|what) name (has|does) my {k}( have|)",
            "(what|how) do i call my {k}",
            "(what|how) did i (call|name) my {k}",
            "who is my {k}",
            "my {k} is (called|named)",
            "what did i say my {k} is called",
            "did i tell you (my {k}'s name|what my {k} is called)",
        ),
        "Your {k} is called {v}.",
        "You have not told me about your {k}.",
    ),
    "food": Kind(
        (
            "my (favourite|favorite) (food|dish|meal) is {v}",
            "(i like|i love) (to eat|eating) {v} (best|most)",
            "{v} is my (favourite|favorite) (food|dish)",
            "(by the way, |also, |and |)my (favourite|favorite) food is {v}",
            "(the food|what) i like (most|best) is {v}",
            "(i love|i like) {v} more than any other food",
            "(remember|note|do not forget) (that |)my (favourite|favorite) food is {v}",
            "best of all i like to eat {v}",
        ),
        "I will remember that your favourite food is {v}.",
        (
            "(what is|what's|whats|tell me) my (favourite|favorite) (food|dish|meal)",
            "(which|what) (food|dish|meal) (do i like|do i love|is my favourite|is my favorite)( "
            "most| best|)",
            f"{_CAN} my (favourite|favorite) (food|dish)",
            "do you (know|remember|recall) my (favourite|favorite) (food|dish|meal)",
            "what do i (like|love) to eat( most| best|)",
            "(which|what) food did i (mention|tell you|say i like|say)",
            "my (favourite|favorite) food (is|was)",
            "did i tell you my (favourite|favorite) food",
        ),
        "Your favourite food is {v}.",
        "You have not told me your favourite food.",
    ),
    "number": Kind(
        (
            "(remember|please remember|keep in mind|do not forget|note|memorise|note down|store) "
            "the number {v}",
            "my (lucky |secret |favourite |favorite |)number is {v}",
            "the number is {v}",
            "{v} is my number",
            "(here is|i give you|i tell you) a number: {v}",
            "(can|could|will) you (remember|keep) the number {v}",
            "(by the way, |also, |and |)the number is {v}",
            "i (am thinking|think) of the number {v}",
            "the secret number is {v}",
            "(remember|note) this number: {v}",
        ),
        "I will remember the number {v}.",
        (
            "(what|which) number did i (tell you|give you|say|mention|ask you to remember|name)",
            "(what is|what's|what was|tell me|say) (the|my) number( i told you| i gave you| that "
            "i told you| i said|)",
            "(what was|what is) the (secret |)number( again|)",
            f"{_CAN} (the|my) number",
            "do you (know|remember|recall) (the|my) number( i told you| i gave you|)",
            "(which|what) number (did you have to remember|should you remember|do you "
            "remember|is it|was it)",
            "(what is|what's|tell me) my (lucky |secret |favourite |favorite |)number",
            "repeat the number",
            "the number i (told|gave) you (is|was)",
            "did i tell you a number",
        ),
        "You told me the number {v}.",
        "You have not told me a number.",
    ),
    "job": Kind(
        (
            "(i work|i am working|i'm working) as a {v}",
            "my (job|work|profession) is {v}",
            "i am a {v}",
            "i'm a {v}",
            "(by the way, |also, |and |)i (am|work as) a {v}",
            "i earn my money as a {v}",
            "(remember|note) that i am a {v}",
        ),
        "I will remember that you are a {v}.",
        (
            "(what is|what's|tell me) my (job|work|profession)",
            "what do i (do|work as)( for a living|)",
            "do you (know|remember|recall) (my job|what i work as|my profession)",
            "(what|which) (job|profession) (do i have|did i tell you|have i)",
            "what am i by profession",
            f"{_CAN} my (job|profession)",
            "as what do i work",
        ),
        "You are a {v}.",
        "You have not told me your job.",
    ),
    "age": Kind(
        (
            "i am {v} years old",
            "i'm {v} years old",
            "my age is {v}",
            "(by the way, |also, |)i am {v} years old",
            "(remember|note) that i am {v} years old",
            "i (turned|became) {v} (this year|last week|today)",
        ),
        "I will remember that you are {v} years old.",
        (
            "how old am i",
            "(what is|what's|tell me) my age",
            "do you (know|remember|recall) (how old i am|my age)",
            "(which|what) age (am i|did i tell you|do i have)",
            f"{_CAN} (how old i am|my age)",
            "my age (is|was)",
        ),
        "You are {v} years old.",
        "You have not told me your age.",
    ),
}
_POOLS: dict[str, tuple[str, ...]] = {
    "name": NAMES,
    "colour": COLOURS,
    "city": CITIES,
    "pet": PET_NAMES,
    "food": FOODS,
    "job": JOBS,
}
_INVENTED = {"name": 0.45, "colour": 0.4, "city": 0.45, "pet": 0.5, "food": 0.45, "job": 0.2}


_MIXED = (NAMES, CITIES, PET_NAMES, FOODS, JOBS, COLOURS)


def _invented(rng: random.Random) -> str:
    """An invented word: parts of two names joined, or one to three syllables."""
    if rng.random() < 0.5:
        first, second = (rng.choice(rng.choice(_MIXED)) for _ in range(2))
        return (first[: rng.randint(1, 6)] + second[rng.randint(0, 4) :]).replace(" ", "").lower()
    word = "".join(rng.choice(STARTS) + rng.choice(MIDDLES) for _ in range(rng.randint(1, 3)))
    return word + (rng.choice(ENDS) if rng.random() < 0.6 else "")


def _other_pool(kind: str, rng: random.Random) -> str:
    """A value from any list of this sort: a name may also be a town's or a pet's."""
    pool = (
        rng.choice((NAMES, CITIES, PET_NAMES))
        if kind in ("name", "city", "pet")
        else rng.choice((COLOURS, FOODS, JOBS))
    )
    return rng.choice(pool)


def value(kind: str, rng: random.Random) -> str:
    """A random value of this kind, never a held-out one."""
    while True:
        found = _draw(kind, rng)
        if found.lower() not in HELD_OUT:
            return found


def _draw(kind: str, rng: random.Random) -> str:
    if kind == "number":
        return str(rng.randrange(10 ** rng.randint(1, 4)))
    if kind == "age":
        return str(rng.randint(5, 99))
    roll = rng.random()
    if roll < _INVENTED[kind]:
        word = _invented(rng)
        return word.capitalize() if kind in ("name", "city", "pet") else word
    if roll < _INVENTED[kind] + 0.1:
        return _other_pool(kind, rng)
    return rng.choice(_POOLS[kind])
