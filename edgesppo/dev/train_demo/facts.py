"""The demo's general knowledge: simple facts, each with the ways to ask for it.

A fact is (ways to ask, slots, answer); the ways to ask are grammars of `wording`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgesppo.dev.train_demo.single_facts import SINGLE

Fact = tuple[tuple[str, ...], Mapping[str, str], str]

CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Japan": "Tokyo",
    "England": "London",
    "Portugal": "Lisbon",
    "Greece": "Athens",
    "Egypt": "Cairo",
    "Russia": "Moscow",
    "China": "Beijing",
    "Austria": "Vienna",
    "Poland": "Warsaw",
    "Sweden": "Stockholm",
    "Norway": "Oslo",
    "Finland": "Helsinki",
    "Denmark": "Copenhagen",
    "Ireland": "Dublin",
    "Hungary": "Budapest",
    "Kenya": "Nairobi",
    "Peru": "Lima",
    "Cuba": "Havana",
    "Canada": "Ottawa",
    "India": "New Delhi",
}
CAPITAL_ASKS = (
    "(what is|what's|whats|what was) the (capital|capital city) of {x}",
    "(please |)(tell me|name|give me|say|state) the (capital|capital city) of {x}",
    "(which|what) (city|town|place) is the capital (city |)of {x}",
    "(can|could|would) you (please |)(tell me|name|give me) the (capital|capital city) of {x}",
    "do you know (the capital of {x}|what the capital of {x} is|{x}'s capital)",
    "(what is|what's|name) {x}'s (capital|capital city)",
    "{x}: (capital|what is the capital|which city is the capital|capital city)",
    "the capital of {x} (is|is what|is called|would be)",
    "capital (city |)of {x}",
    "{x} capital",
    "(what is|what's) the (name of the|main) capital (city |)(of|in) {x}",
    "(what|which) capital (does {x} have|belongs to {x}|has {x})",
    "{x} has (which|what) capital (city|)",
    "i (need|want|would like) (to know |)the capital of {x}",
    "(and |)what about (the capital of {x}|{x}'s capital)",
    "i (am looking|look) for the capital of {x}",
    "how is the capital of {x} called",
    "what do (you|they|people) call the capital of {x}",
    "if i (go|travel|fly) to the capital of {x}, (where am i|in which city am i|what city is that)",
    "from (which|what) city is {x} (governed|ruled)",
    "in {x}, (what|which) (is the capital|city is the capital)",
)
COLOURS = {
    "the sky": "blue",
    "the sea": "blue",
    "grass": "green",
    "snow": "white",
    "milk": "white",
    "a banana": "yellow",
    "a lemon": "yellow",
    "blood": "red",
    "a tomato": "red",
    "a strawberry": "red",
    "coal": "black",
    "a carrot": "orange",
    "the sun": "yellow",
    "a frog": "green",
    "a raven": "black",
    "chocolate": "brown",
}
COLOUR_ASKS = (
    "(what|which) (colour|color) (is|has|does) {x}(| have)",
    "(what is|what's|whats) the (colour|color) of {x}",
    "(please |)(tell me|name|say|give me) the (colour|color) of {x}",
    "(can|could) you tell me (what|which) (colour|color) {x} (is|has)",
    "do you know (what|which) (colour|color) {x} (is|has)",
    "{x}: (what|which) (colour|color)",
    "(colour|color) of {x}",
    "the (colour|color) of {x} is",
    "(what|which) (colour|color) (would|do) you (say {x} is|give {x}|paint {x})",
    "when i look at {x}, (what|which) (colour|color) (do i see|is it)",
    "how is {x} (coloured|colored)",
    "in (what|which) (colour|color) (should|would|do) i (paint|draw) {x}",
    "i (need|want) the (colour|color) of {x}",
    "describe the (colour|color) of {x}",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
NEXT_ASKS = (
    "(what|which) {unit} (comes|is|follows) (right |just |)after {x}",
    "(what|which) {unit} follows {x}",
    "(what|which) is the (next {unit}|{unit}) after {x}",
    "(what is|what's|tell me|name|say) the {unit} after {x}",
    "(please |)(tell me|name) the {unit} (that|which) (follows|comes after) {x}",
    "(what|which) is the {unit} (that|which) (follows|comes after) {x}",
    "(can|could) you tell me (what|which) {unit} (comes after|follows) {x}",
    "do you know (what|which) {unit} (comes after|follows) {x}",
    "{x} is followed by (what|which) {unit}",
    "(what comes|what follows|next {unit}) after {x}",
    "the {unit} after {x} (is|)",
    "(today|now|this) is {x}. (what|which) {unit} (is|comes) next",
    "(when|if) {x} (ends|is over), (what|which) {unit} (begins|starts|comes)",
)
BEFORE_ASKS = (
    *(
        grammar.replace("comes after", "comes before").replace(" after {x}", " before {x}")
        for grammar in NEXT_ASKS
        if "follow" not in grammar and "next" not in grammar and "over" not in grammar
    ),
    "{x} (comes|is) after (which|what) {unit}",
    "(what|which) {unit} comes just before {x}",
)

# (things, in what, answer) of questions that begin with "how many".
COUNTS = (
    ("days", "a week", "A week has 7 days."),
    ("months", "a year", "A year has 12 months."),
    ("days", "a year", "A year has 365 days."),
    ("hours", "a day", "A day has 24 hours."),
    ("minutes", "an hour", "An hour has 60 minutes."),
    ("seconds", "a minute", "A minute has 60 seconds."),
    ("legs", "a spider", "A spider has 8 legs."),
    ("legs", "a dog", "A dog has 4 legs."),
    ("legs", "a cat", "A cat has 4 legs."),
    ("legs", "a horse", "A horse has 4 legs."),
    ("legs", "a bird", "A bird has 2 legs."),
    ("legs", "an insect", "An insect has 6 legs."),
    ("arms", "an octopus", "An octopus has 8 arms."),
    ("wheels", "a car", "A car has 4 wheels."),
    ("wheels", "a bicycle", "A bicycle has 2 wheels."),
    ("letters", "the alphabet", "The alphabet has 26 letters."),
    ("planets", "the solar system", "The solar system has 8 planets."),
    ("sides", "a triangle", "A triangle has 3 sides."),
    ("sides", "a square", "A square has 4 sides."),
    ("fingers", "a hand", "A hand has 5 fingers."),
)
COUNT_ASKS = (
    "how many {n} (does|do|has|has got) {x} (have|got|)",
    "how many {n} (are there|are|do you find|can you find) (in|on) {x}",
    "how many {n} (are|make|make up) {x}",
    "(what is|what's|tell me|give me) the number of {n} (in|of|on) {x}",
    "(can|could) you tell me how many {n} {x} has",
    "do you know how many {n} {x} has",
    "(please |)tell me how many {n} (there are in|are in|are on) {x}",
    "(number|count) of {n} (in|of|on) {x}",
    "how many {n} (would|will|can) i (count|see|find) (on|in) {x}",
    "{x}: how many {n}",
    "how many {n} (belong to|go into|fit into) {x}",
    "i (want|need) to know how many {n} {x} has",
    "i forgot how many {n} {x} has",
    "(in|on) {x}, how many {n} (are there|do you find)",
)
OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "up": "down",
    "day": "night",
    "black": "white",
    "fast": "slow",
    "old": "young",
    "left": "right",
    "open": "closed",
    "happy": "sad",
    "long": "short",
    "full": "empty",
    "wet": "dry",
    "good": "bad",
}
OPPOSITE_ASKS = (
    "(what is|what's|whats|tell me|name|give me) the opposite of {x}",
    "(what|which) (word |)is the opposite of {x}",
    "the opposite of {x} (is|is what)",
    "opposite of {x}",
    "what is opposite to {x}",
    "(can|could) you (tell me|name) the opposite of {x}",
    "do you know the opposite of {x}",
    "{x} is the opposite of (what|which word)",
    "(which|what) word means the opposite of {x}",
    "if (it|something) is not {x}, (what is it|then what is it)",
    "what do you call the opposite of {x}",
)
YOUNG = {
    "cat": "kitten",
    "dog": "puppy",
    "cow": "calf",
    "sheep": "lamb",
    "horse": "foal",
    "hen": "chick",
}
YOUNG_ASKS = (
    "(what is|what's|how is) a (young|baby) {x} called",
    "what do (you|we|people) call a (young|baby|little) {x}",
    "(what is|tell me|name) the (name|word) (for|of) a (young|baby) {x}",
    "a (young|baby) {x} is (called|named) (what|)",
    "(which|what) word (means|stands for) a (young|baby) {x}",
    "(the |)young of a {x} (is|are) (called|)",
    "(can|could) you tell me (what|how) a (young|baby) {x} is called",
    "(baby|young) {x} (name|word)",
    "what is the (child|young) of a {x} (called|)",
)
SOUNDS = {
    "cat": "meow",
    "dog": "woof",
    "cow": "moo",
    "sheep": "baa",
    "duck": "quack",
    "lion": "roar",
}
SOUND_ASKS = (
    "(what|which) (sound|noise) does a {x} make",
    "what does (a|the) {x} say",
    "(what is|tell me|name) the (sound|noise) (of|made by) a {x}",
    "how does (a|the) {x} (sound|talk|go)",
    "a {x} (makes|has) (what|which) (sound|noise)",
    "(can|could) you (make|tell me) the (sound|noise) of a {x}",
    "(sound|noise) of a {x}",
    "(what|which) (sound|noise) do {x}s make",
)


def _table(asks: tuple[str, ...], rows: Mapping[str, str], answer: str) -> Iterator[Fact]:
    """One fact per row; the answer begins with a capital letter."""
    for key, value in rows.items():
        text = answer.format(x=key, y=value)
        yield asks, {"x": key}, text[0].upper() + text[1:]


def _neighbours(unit: str, names: tuple[str, ...]) -> Iterator[Fact]:
    for i, name in enumerate(names):
        slots = {"x": name, "unit": unit}
        following = names[(i + 1) % len(names)]
        yield NEXT_ASKS, slots, f"The {unit} after {name} is {following}."
        yield BEFORE_ASKS, slots, f"The {unit} before {name} is {names[i - 1]}."


def facts() -> list[Fact]:
    """All facts that the demo learns."""
    found = list(_table(CAPITAL_ASKS, CAPITALS, "The capital of {x} is {y}."))
    found += _table(COLOUR_ASKS, COLOURS, "{x} is {y}.")
    found += _neighbours("day", DAYS)
    found += _neighbours("month", MONTHS)
    found += [(COUNT_ASKS, {"n": n, "x": x}, answer) for n, x, answer in COUNTS]
    found += _table(OPPOSITE_ASKS, OPPOSITES, "The opposite of {x} is {y}.")
    found += _table(YOUNG_ASKS, YOUNG, "A young {x} is called a {y}.")
    found += _table(SOUND_ASKS, SOUNDS, "A {x} says {y}.")
    found += [
        (tuple(a.replace("colou?r", "(colour|color)") for a in asks), {}, answer)
        for asks, answer in SINGLE
    ]
    return found
