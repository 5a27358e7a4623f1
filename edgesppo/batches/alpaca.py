"""AlpacaEval's instructions, and the file of outputs that its judge takes.

    INSTRUCTIONS        a JSON list (or JSON Lines) of {"dataset", "instruction", ...}
    OUT                 a JSON list of {"dataset", "instruction", "output", "generator"}
    OUT.answers.jsonl   the resumable file that OUT is made from

The instructions are alpaca_eval.json of the data set tatsu-lab/alpaca_eval, which the user brings.
Nothing here judges an answer: a win rate comes from the alpaca_eval package and a judge alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.batches.answer_figures import FAILED, Answer
from edgesppo.batches.recipe import Recipe
from edgesppo.batches.request import BadRow, decode
from edgesppo.errors import UsageError
from edgesppo.sampling.params import SamplingParams
from edgesppo.system import validate
from edgesppo.system.fs import write_file
from edgesppo.system.shell import shell_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from edgesppo.batches.input import InputRows
    from edgesppo.batches.output import ResultFile

SOURCE = "https://huggingface.co/datasets/tatsu-lab/alpaca_eval"
_INSTRUCTIONS = f"AlpacaEval's alpaca_eval.json, from {SOURCE}"
_OUTPUTS = "a model_outputs.json, as this command writes it"
# Mean lengths of the outputs that were published for Gemma-2-9B-It-SPPO, in characters.
PUBLISHED_LENGTHS = {"Iter1": 1669, "Iter2": 1759, "Iter3": 1803}
_SUFFIX = ".answers.jsonl"
_JUDGE = "weighted_alpaca_eval_gpt4_turbo"


@dataclass(frozen=True)
class Instruction:
    """One of AlpacaEval's instructions, and the subset that it belongs to."""

    row: int
    text: str
    dataset: str


def recipe(overrides: Mapping[str, Any], *, published_form: bool = False) -> Recipe:
    """The published sampling, with what the user wants otherwise; the seed is 0."""
    published = SamplingParams(temperature=0.7, top_p=0.9, max_tokens=2048, seed=0)
    return Recipe(
        {**vars(published), **overrides},
        name="alpaca",
        prompt_field="instruction",
        bare_opening=published_form,
    )


def read_instructions(rows: InputRows) -> list[Instruction]:
    """The instructions of a file. Raises UsageError, with the row, for a file of another form."""
    return [_instruction(rows, place.row, rows.read(place)) for place in rows.places]


def _instruction(
    rows: InputRows, n: int, data: bytes, expected: str = _INSTRUCTIONS
) -> Instruction:
    where = f"{rows.name}, row {n}"
    try:
        row = decode(data)
    except BadRow as error:
        raise UsageError(f"{where}: {error}") from None
    text, dataset = row.get("instruction"), row.get("dataset", "")
    if not isinstance(text, str) or not text.strip():
        has = ", ".join(map(validate.quoted, list(row)[:8])) or "nothing"
        raise UsageError(
            f"{where} has no 'instruction' with a text (it has {has}); expected {expected}"
        )
    if row.get("input"):
        raise UsageError(
            f"{where} has an 'input' beside its instruction, as Alpaca's training data has; "
            f"expected {expected}"
        )
    validate.text(f"{where}: instruction", text)
    validate.text(f"{where}: dataset", dataset)
    return Instruction(n, text, dataset)


def resumable_path(out: Path) -> Path:
    """The resumable file beside the output. Raises UsageError for an output of someone else."""
    path = out.with_name(out.name + _SUFFIX)
    if out.exists() and not path.exists():
        raise UsageError(f"{out} exists, and was not made here; use another output, or remove it")
    return path


def answers(instructions: Iterable[Instruction], file: ResultFile) -> list[Answer]:
    """The answers to the instructions, in their order; empty ones where there is none."""
    found = {result.row: result for result in file.results()}
    listed = []
    for instruction in instructions:
        line = found[instruction.row]
        n_control = line.get("control_tokens", 0)
        reason = str(line.get("finish_reason", FAILED))
        listed.append(Answer(line.text, reason, n_control, instruction.dataset))
    return listed


def write_outputs(
    out: Path, instructions: Sequence[Instruction], found: Sequence[Answer], generator: str
) -> None:
    """Write the outputs as the alpaca_eval package takes them. Raises OutputError."""
    outputs = [
        {
            "dataset": instruction.dataset,
            "instruction": instruction.text,
            "output": answer.text,
            "generator": generator,
        }
        for instruction, answer in zip(instructions, found, strict=True)
    ]
    text = json.dumps(outputs, ensure_ascii=False, indent=1)
    write_file(out, text.encode("utf-8", "replace") + b"\n")  # a file's name need not be UTF-8


def read_reference(rows: InputRows, instructions: Sequence[Instruction]) -> list[tuple[str, str]]:
    """The (instruction, output) of a model_outputs.json, for those instructions that it has.

    Raises UsageError for a file of another form, or with none of the instructions.
    """
    outputs: dict[str, str] = {}
    for place in rows.places:
        found = _instruction(rows, place.row, data := rows.read(place), _OUTPUTS)
        output = decode(data).get("output")
        if not isinstance(output, str):
            raise UsageError(
                f"{rows.name}, row {place.row} has no 'output' with a text; expected {_OUTPUTS}"
            )
        validate.text(f"{rows.name}, row {place.row}: output", output)
        outputs[found.text] = output
    pairs = [(one.text, outputs[one.text]) for one in instructions if one.text in outputs]
    if not pairs:
        raise UsageError(
            f"{rows.name} has no output for any of the {len(instructions):,} instructions"
        )
    return pairs


def judge_command(out: Path) -> str:
    """The shell command by which AlpacaEval 2's judge compares the outputs."""
    return (
        f"alpaca_eval --model_outputs {shell_word(str(out.resolve()))} --annotators_config {_JUDGE}"
    )
