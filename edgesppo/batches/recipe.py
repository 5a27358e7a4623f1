"""`Recipe`: what holds for every row of a batch unless the row says otherwise."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from edgesppo.chat import template
from edgesppo.errors import UsageError
from edgesppo.sampling.params import MAX_SEED, SamplingParams
from edgesppo.system import validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo.chat.messages import Message
    from edgesppo.chat.structured import AnswerFormat
    from edgesppo.chat.template import ChatTokenizer

T = TypeVar("T")
MAX_ANSWERS = 128  # of a row
_MAX_PARTS = 1_000_000


@dataclass(frozen=True)
class Recipe:
    """How the rows of a batch are answered.

    `sampling` are the sampling parameters that override the model's defaults; `n` is the number of
    answers to a row, `seeds` are their seeds; with `apart` each has a line of the output. `part` is
    (i, n): the i-th of n equal parts of the rows. `prompt_field` is for data sets: that field is
    the prompt, and the others do not matter. `bare_opening` leaves out the line break after
    "model" that opens an answer, as published evaluations of SPPO do.
    """

    sampling: Mapping[str, Any] = field(default_factory=dict)
    name: str = "batch"
    n: int = 1
    seeds: Sequence[int] | None = None
    system: str | None = None
    answer_format: AnswerFormat | None = None
    apart: bool = False
    part: tuple[int, int] | None = None
    prompt_field: str | None = None
    bare_opening: bool = False

    def __post_init__(self) -> None:
        self.params(SamplingParams())
        check_answers(self.n)
        if self.system is not None:
            validate.text("system", self.system)
        if self.seeds is not None:
            if self.n != 1:
                raise UsageError(
                    "seeds (--seeds) says how many answers there are; leave out n (-n)"
                )
            object.__setattr__(self, "seeds", checked_seeds(self.seeds))
        if self.part is not None:
            object.__setattr__(self, "part", _checked_part(self.part))
        if self.answer_format is not None:
            self.answer_format.check(self.params(SamplingParams()))

    def params(self, defaults: SamplingParams) -> SamplingParams:
        """The sampling parameters for a model with these defaults."""
        return defaults.replace(**self.sampling)

    def prompt_ids(self, model: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
        """The prompt of messages that end with a user's. Raises UsageError for others."""
        ids = template.encode(model, messages)
        if self.bare_opening:
            return [*ids[: -len(model.answer_head)], *model.tokenize("model")]
        return ids

    @property
    def answer_break(self) -> str:
        """What an answer begins with after the prompt: with a bare opening, its line break."""
        return "\n" if self.bare_opening else ""

    def describe(self, params: SamplingParams) -> dict[str, Any]:
        """What the answers depend on, as JSON has it: for the head of a batch's journal."""
        sampling = {
            field.name: _plain(getattr(params, field.name)) for field in dataclasses.fields(params)
        }
        grammar = None if self.answer_format is None else self.answer_format.grammar
        return {
            "recipe": self.name,
            **sampling,
            "n": self.n,
            "seeds": _plain(self.seeds),
            "system": self.system,
            "schema": grammar and hashlib.sha256(grammar.encode()).hexdigest(),
            "part": _plain(self.part),
            "prompt_form": "published" if self.bare_opening else "canonical",
        }


def _plain(value: Any) -> Any:
    """The value with lists in place of tuples, as JSON reads it back."""
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def check_answers(n: Any) -> int:
    """The number of answers to a row. Raises UsageError."""
    return validate.integer("n", n, 1, MAX_ANSWERS)


def checked_seeds(seeds: Any) -> tuple[int, ...]:
    """The seeds of a row's answers. Raises UsageError unless they are different numbers."""
    found = validate.plain_list(seeds)
    if not found or len(found) > MAX_ANSWERS:
        raise validate.invalid_value("seeds", seeds, f"a list of 1 to {MAX_ANSWERS} whole numbers")
    checked = tuple(validate.integer("a seed", seed, 0, MAX_SEED) for seed in found)
    if len(set(checked)) < len(checked):
        raise validate.invalid_value("seeds", seeds, "different ones: equal seeds answer the same")
    return checked


def _checked_part(part: Any) -> tuple[int, int]:
    """A part (i, n) with 1 <= i <= n. Raises UsageError."""
    found = validate.plain_list(part)
    if found is None or len(found) != 2:
        raise validate.invalid_value("part", part, "two numbers I/N, such as 1/3")
    n = validate.integer("the number of parts", found[1], 1, _MAX_PARTS)
    return validate.integer("the part", found[0], 1, n), n


def take_part(rows: Sequence[T], part: tuple[int, int] | None) -> Sequence[T]:
    """The rows of a part: consecutive ones, as many in each part as in any other, or one more.

    Raises UsageError for a part without rows.
    """
    if part is None:
        return rows
    i, n = part
    found = rows[len(rows) * (i - 1) // n : len(rows) * i // n]
    if not found:
        raise UsageError(f"part {i}/{n} of {len(rows):,} rows has none; use fewer parts")
    return found
