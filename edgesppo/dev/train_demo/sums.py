"""Generate small sums: addition and subtraction of whole numbers from 0 to 20."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

LARGEST = 20
WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
TOO_BIG = "That is too big for me: I only add and subtract numbers from 0 to 20."

_EITHER = (
    "(what is|what's|whats|how much is) {a} {op} {b}",
    "(tell me|please tell me|say) what {a} {op} {b} is",
    "(can|could) you (please |)(tell me|say) (what|how much) {a} {op} {b} (is|makes)",
    "(calculate|compute|solve|evaluate) {a} {op} {b}",
    "(please|can you|could you) (calculate|compute|solve) {a} {op} {b}",
    "{a} {op} {b}",
    "{a} {op} {b} (is|equals|is what|equals what)",
    "do you know (what|how much) {a} {op} {b} is",
    "(what does|what do) {a} {op} {b} (equal|give|make)",
    "(what is|give me|tell me) the (result|answer|value) of {a} {op} {b}",
    "(i need|i want|i want to know) {a} {op} {b}",
    "how much do i (get|have) with {a} {op} {b}",
    "(and |now |)what about {a} {op} {b}",
)
_SIGNS = (
    "{a} {sign} {b}",
    "{a}{sign}{b}",
    "{a} {sign} {b} =",
    "{a}{sign}{b}=",
    "(what is|what's|how much is|calculate|solve|compute) {a} {sign} {b}",
    "(what is|what's|how much is|calculate) {a}{sign}{b}",
)
_ADD = (
    "add {a} and {b}",
    "add {b} to {a}",
    "(please|can you|could you) add {a} and {b}",
    "(what is|what's|tell me|give me) the sum of {a} and {b}",
    "sum of {a} and {b}",
    "(what is|how much is) {a} and {b} (together|added|in all|added up)",
    "{a} and {b} (together|is|are|in all|makes)",
    "{a} and {b} make (what|how much)",
    "what do i get (if|when) i add {a} (and|to) {b}",
    "i had {a} {things} and (found|bought|got) {b} more. how many are there now",
    "(anna|he|she|a man) has {a} {things} and (buys|finds|gets) {b} more. how many (is|are) that",
    "there are {a} {things} and {b} more come. how many are there",
)
_TAKE = (
    "subtract {b} from {a}",
    "(please|can you|could you) subtract {b} from {a}",
    "take {b} (away |)from {a}",
    "(what is|how much is) {a} less {b}",
    "{a} take away {b}",
    "(what is|what's) the difference (of|between) {a} and {b}",
    "what do i get (if|when) i subtract {b} from {a}",
    "(what is|what's) {b} less than {a}",
    "i had {a} {things} and (lost|ate|gave away) {b}. how many are there now",
    "(anna|he|she|a man) has {a} {things} and (loses|sells|eats) {b}. how many are left",
    "there are {a} {things} and {b} go away. how many are left",
    "what is left (when|if) {b} is taken from {a}",
)
THINGS = ("pears", "books", "coins", "eggs", "cups", "pens", "stones", "nuts", "cakes", "balls")
GRAMMARS = _EITHER + _SIGNS + _ADD + _TAKE


def sum_turn(rng: random.Random) -> tuple[str, dict[str, str], str]:
    """A random sum as (grammar, slots, answer); the answer repeats it in digits."""
    adding = rng.random() < 0.5
    a, b = rng.randint(0, LARGEST), rng.randint(0, LARGEST)
    if not adding and a < b and rng.random() < 0.95:
        a, b = b, a
    grammar = _grammar(adding, rng)
    if "difference" in grammar and a < b:
        a, b = b, a
    word, value = ("plus", a + b) if adding else ("minus", a - b)
    spelled = rng.random() < 0.1 and "{sign}" not in grammar
    slots = {
        "a": WORDS[a] if spelled else str(a),
        "b": WORDS[b] if spelled else str(b),
        "op": word,
        "sign": "+" if adding else "-",
        "things": rng.choice(THINGS),
    }
    return grammar, slots, f"{a} {word} {b} is {value}."


def _grammar(adding: bool, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.40:
        return rng.choice(_EITHER)
    if roll < 0.60:
        return rng.choice(_SIGNS)
    return rng.choice(_ADD if adding else _TAKE)


def too_big_turn(rng: random.Random) -> tuple[str, dict[str, str], str]:
    """A random sum beyond the range as (grammar, slots, answer), which the demo declines."""
    slots = {
        "a": str(rng.randint(41, 9999)),
        "b": str(rng.randint(21, 9999)),
        "op": rng.choice(("plus", "minus")),
    }
    return rng.choice(_EITHER), slots, TOO_BIG
