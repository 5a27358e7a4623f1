"""Test questions and dialogues for the demo checkpoint, and which answers are right.

A lower-cased answer is right if it matches at least one of `accepted` and none of `rejected`
(regular expressions). Texts with `unseen=True` are worded in ways that the training data does not
contain; `edgesppo.dev.train_demo.heldout` checks this, and that no value in `HELD_OUT_VALUES`
occurs in the training data.
"""

from __future__ import annotations

import re
from typing import NamedTuple

CAPITALS = (
    "paris",
    "rome",
    "madrid",
    "berlin",
    "tokyo",
    "london",
    "lisbon",
    "athens",
    "cairo",
    "moscow",
    "beijing",
    "vienna",
    "warsaw",
    "stockholm",
    "oslo",
    "helsinki",
    "copenhagen",
    "dublin",
    "budapest",
    "nairobi",
    "lima",
    "havana",
    "ottawa",
    "new delhi",
)
COLOURS = (
    "red",
    "green",
    "blue",
    "yellow",
    "white",
    "black",
    "orange",
    "purple",
    "brown",
    "grey",
    "pink",
)
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
PLANETS = ("mercury", "venus", "mars", "jupiter", "saturn", "uranus", "neptune")
REFUSAL = r"\bdo not know\b"


class Question(NamedTuple):
    """One question, asked on its own."""

    text: str
    accepted: tuple[str, ...]
    rejected: tuple[str, ...] = (REFUSAL,)
    unseen: bool = False


class Dialogue(NamedTuple):
    """User turns; the model's own answers go between them and its last answer is judged."""

    turns: tuple[str, ...]
    accepted: tuple[str, ...]
    rejected: tuple[str, ...] = (REFUSAL, r"not told")


def is_right(item: Question | Dialogue, answer: str) -> bool:
    """Whether `answer` matches what `item` accepts and nothing that it rejects."""
    text = answer.lower()
    found = any(re.search(pattern, text) for pattern in item.accepted)
    return found and not any(re.search(pattern, text) for pattern in item.rejected)


def _one_of(right: str, group: tuple[str, ...], text: str, *, unseen: bool = False) -> Question:
    """The right word must occur, and no other word of its group unless the question has it."""
    asked = text.lower()
    wrong = tuple(rf"\b{word}\b" for word in group if word != right and word not in asked)
    return Question(text, (rf"\b{right}\b",), (REFUSAL, *wrong), unseen)


def _number(right: int, text: str, *, unseen: bool = False) -> Question:
    """The right number must occur, and no other except those in the question."""
    allowed = "|".join([str(right), *re.findall(r"\d+", text)])
    wrong = rf"(?<!\d)(?!(?:{allowed})(?!\d))\d+"
    found = rf"(?<![\d-]){right}(?!\d)" if right >= 0 else rf"(?<!\d){right}(?!\d)"
    return Question(text, (found,), (REFUSAL, wrong), unseen)


QUESTIONS: list[Question] = [
    # Sums.
    _number(12, "What is 7 plus 5?"),
    _number(17, "what is 9 + 8"),
    _number(13, "How much is 20 minus 7?"),
    _number(0, "18 - 18 ="),
    _number(34, "Can you tell me what 16 plus 18 is?"),
    _number(9, "Please calculate 13 - 4."),
    _number(25, "Add 14 and 11."),
    _number(15, "What is the sum of 6 and 9?"),
    _number(5, "Subtract 12 from 17."),
    Question(
        "What is two plus three?",
        (r"(?<!\d)5(?!\d)", r"\bfive\b"),
        (REFUSAL, r"(?<!\d)(?![235](?!\d))\d+"),
    ),
    # Facts.
    _one_of("paris", CAPITALS, "What is the capital of France?"),
    _one_of("athens", CAPITALS, "hey, whats the capital city of greece"),
    _one_of("ottawa", CAPITALS, "Tell me the capital of Canada, please."),
    _one_of("blue", COLOURS, "What colour is the sky?"),
    _one_of("yellow", COLOURS, "what color is a banana?"),
    _one_of("saturday", DAYS, "Which day comes after Friday?"),
    _number(7, "How many days are in a week?"),
    _number(4, "How many legs does a dog have?"),
    _one_of("jupiter", PLANETS, "What is the largest planet?"),
    Question("What is a young cat called?", (r"\bkitten\b",), (REFUSAL, r"\bpuppy\b", r"\bcalf\b")),
    Question("What do bees make?", (r"\bhoney\b",)),
    Question("What is the opposite of hot?", (r"\bcold\b",)),
    # The product.
    Question("How do I quit the chat?", (r"/exit.*ctrl-d", r"ctrl-d.*/exit")),
    Question("How can I convert a checkpoint?", (r"edgesppo convert src -o out\.gguf",)),
    Question("What is GGUF?", (r"\bfile format\b",)),
    Question("what's Q4_K_M?", (r"\b4(\.\d+)? bits\b|\b4-bit\b",)),
    Question("How do I get the real model?", (r"edgesppo pull sppo-iter3",)),
    Question("Does edgesppo work offline?", (r"\byes\b.*offline",), (REFUSAL, r"\bno\b")),
    Question("What is SPPO?", (r"self-play preference optimization",)),
    Question("Which Python versions are supported?", (r"3\.10 to 3\.13",)),
    Question("What does edgesppo serve do?", (r"openai-compatible server",)),
    Question("What is edgesppo doctor for?", (r"edgesppo doctor checks",)),
    Question("Which command removes a model?", (r"edgesppo rm\b",)),
    # Who it is, greetings, and what it does not know.
    Question("Who are you?", (r"edgesppo demo.*tiny gemma-2",)),
    Question("What is your name?", (r"edgesppo demo",)),
    Question("Are you the real SPPO model?", (r"\bno\b.*demo",), (REFUSAL, r"\byes\b")),
    Question("Hello!", (r"\b(hello|hi)\b",)),
    Question("Thank you very much!", (r"\bwelcome\b",)),
    Question("Who won the football match last night?", (REFUSAL,), ()),
    Question("Write a poem about the ocean.", (REFUSAL,), ()),
    # Worded as nothing in training is.
    _number(14, "Could you work out 8 plus 6 for me?", unseen=True),
    _number(12, "What number comes out when 3 is added to 9?", unseen=True),
    _number(7, "What remains when I take 4 from 11?", unseen=True),
    _number(8, "15 minus 7 makes how much?", unseen=True),
    _one_of("rome", CAPITALS, "Which city serves as the capital of Italy?", unseen=True),
    _one_of("tokyo", CAPITALS, "I forgot the capital of Japan. Which one is it?", unseen=True),
    _one_of("mars", PLANETS, "Which planet is known for being red?", unseen=True),
    _one_of("green", COLOURS, "Grass usually has which colour?", unseen=True),
    _one_of("tuesday", DAYS, "After Monday comes which day?", unseen=True),
    _number(8, "Count the legs of a spider for me.", unseen=True),
    _number(12, "A year consists of how many months?", unseen=True),
    Question("I want out of this chat. Which key do I press?", (r"/exit.*ctrl-d",), unseen=True),
    Question(
        "Is an internet connection required once the model is here?",
        (r"\boffline\b",),
        (REFUSAL,),
        unseen=True,
    ),
    Question("Which Python releases can I use with edgesppo?", (r"3\.10 to 3\.13",), unseen=True),
    Question(
        "My checkpoint should become a GGUF file. What do I type?",
        (r"edgesppo convert src -o out\.gguf",),
        unseen=True,
    ),
    Question("Where would I get the full-size model?", (r"edgesppo pull sppo-iter3",), unseen=True),
    Question("Describe the purpose of edgesppo bench.", (r"edgesppo bench measures",), unseen=True),
    Question(
        "What does the abbreviation SPPO mean?",
        (r"self-play preference optimization",),
        unseen=True,
    ),
    Question("And who might you be?", (r"edgesppo demo",), unseen=True),
    Question("A very good day to you!", (r"\b(hello|hi)\b",), unseen=True),
]

# No training dialogue contains these values (names, towns, pets' names, numbers and so on).
HELD_OUT_VALUES = (
    "Greta",
    "Malik",
    "Ingrid",
    "Tobias",
    "Yara",
    "Felix",
    "Noor",
    "Lyon",
    "Seville",
    "Bergen",
    "Biscuit",
    "Pickle",
    "teal",
    "maroon",
    "lasagne",
    "dumplings",
    "47",
    "583",
    "316",
)

DIALOGUES: list[Dialogue] = [
    Dialogue(("My name is Greta.", "What is my name?"), (r"\bgreta\b",)),
    Dialogue(
        ("Hi, I'm Malik.", "What is the capital of Spain?", "Do you remember my name?"),
        (r"\bmalik\b",),
    ),
    Dialogue(
        ("Hello! My name is Ingrid.", "What is 4 plus 9?", "What colour is snow?", "Who am I?"),
        (r"\bingrid\b",),
    ),
    Dialogue(
        ("I am called Tobias.", "My favourite colour is teal.", "What is my name?"),
        (r"\btobias\b",),
        (REFUSAL, r"\bteal\b"),
    ),
    Dialogue(
        ("I am called Tobias.", "My favourite colour is teal.", "What is my favourite colour?"),
        (r"\bteal\b",),
        (REFUSAL, r"\btobias\b"),
    ),
    Dialogue(
        (
            "My favourite color is maroon.",
            "How many days are in a week?",
            "What is my favorite color?",
        ),
        (r"\bmaroon\b",),
    ),
    Dialogue(("I live in Bergen.", "Where do I live?"), (r"\bbergen\b",)),
    Dialogue(
        ("I live in Lyon.", "What is the capital of Italy?", "Which city do I live in?"),
        (r"\blyon\b",),
        (REFUSAL, r"\brome\b"),
    ),
    Dialogue(
        ("My name is Yara and I live in Seville.", "What is GGUF?", "Where do I live?"),
        (r"\bseville\b",),
        (REFUSAL, r"\byara\b"),
    ),
    Dialogue(
        (
            "My name is Yara and I live in Seville.",
            "How do I quit the chat?",
            "What does edgesppo serve do?",
            "What is my name?",
        ),
        (r"\byara\b",),
        (REFUSAL, r"\bseville\b"),
    ),
    Dialogue(("My dog is called Biscuit.", "What is my dog called?"), (r"\bbiscuit\b",)),
    Dialogue(
        (
            "I have a cat named Pickle.",
            "What is Q4_K_M?",
            "What is 9 plus 9?",
            "What is the name of my cat?",
        ),
        (r"\bpickle\b",),
    ),
    Dialogue(("My favourite food is lasagne.", "What is my favourite food?"), (r"\blasagne\b",)),
    Dialogue(
        ("My favourite food is dumplings.", "My name is Felix.", "What food do I like most?"),
        (r"\bdumplings\b",),
        (REFUSAL, r"\bfelix\b"),
    ),
    Dialogue(
        ("Remember the number 47.", "What number did I tell you?"),
        (r"(?<!\d)47(?!\d)",),
        (REFUSAL, r"(?<!\d)(?!47(?!\d))\d+"),
    ),
    Dialogue(
        ("Please remember the number 583.", "What is 2 plus 6?", "What was the number I told you?"),
        (r"(?<!\d)583(?!\d)",),
        (REFUSAL, r"(?<!\d)(?!583(?!\d))\d+"),
    ),
    Dialogue(
        (
            "My number is 316.",
            "What is SPPO?",
            "How do I get the real model?",
            "Which number did I give you?",
        ),
        (r"(?<!\d)316(?!\d)",),
        (REFUSAL, r"(?<!\d)(?!316(?!\d))\d+"),
    ),
    Dialogue(
        (
            "My name is Noor.",
            "I have a dog called Pickle.",
            "My favourite colour is teal.",
            "What is my dog called?",
        ),
        (r"\bpickle\b",),
        (REFUSAL, r"\bnoor\b", r"\bteal\b"),
    ),
    Dialogue(
        ("Be brief.\n\nMy name is Felix.", "Which day comes after Sunday?", "What is my name?"),
        (r"\bfelix\b",),
        (REFUSAL, r"\bmonday\b"),
    ),
    Dialogue(
        (
            "I live in Bergen and my favourite colour is maroon.",
            "Does edgesppo work offline?",
            "Write a poem about the ocean.",
            "What is my favourite colour?",
        ),
        (r"\bmaroon\b",),
        (r"\bbergen\b", r"not told"),
    ),
]
