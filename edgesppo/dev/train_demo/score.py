"""Score a checkpoint on the evaluation questions, with greedy decoding in transformers.

python -m edgesppo.dev.train_demo.score [DIR] [--questions FILE]
"""

from __future__ import annotations

import argparse
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgesppo.dev.train_demo import heldout, tokenizer
from edgesppo.dev.train_demo.extra import need
from edgesppo.system.paths import PACKAGE

MOST_TOKENS = 60
Answer = Callable[[Sequence[list[str]]], list[str]]


def prompt_ids(texts: list[str], processor: Any) -> list[int]:
    """Token ids of a dialogue that begins and ends with the user, up to the model's turn."""
    ids = [2]
    for i, text in enumerate(texts):
        role = "model" if i % 2 else "user"
        ids += [tokenizer.START, *processor.encode(role), tokenizer.NEWLINE]
        ids += [*processor.encode(text.strip()), tokenizer.END, tokenizer.NEWLINE]
    return [*ids, tokenizer.START, *processor.encode("model"), tokenizer.NEWLINE]


def answerer(folder: Path) -> Answer:
    """Load the checkpoint in `folder`; a function that answers a batch of dialogues."""
    torch, transformers, spm = need("torch"), need("transformers"), need("sentencepiece")
    processor = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    model = transformers.Gemma2ForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()

    def answer(dialogues: Sequence[list[str]]) -> list[str]:
        rows = [prompt_ids(texts, processor) for texts in dialogues]
        starts, open_rows = [len(row) for row in rows], set(range(len(rows)))
        for _ in range(MOST_TOKENS):
            width = max(map(len, rows))
            ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
            with torch.no_grad():
                best = model(ids).logits.argmax(-1)
            for i in sorted(open_rows):
                rows[i].append(int(best[i, len(rows[i]) - 1]))
                if rows[i][-1] in (1, tokenizer.END):
                    open_rows.discard(i)
            if not open_rows:
                break
        return [
            processor.decode([t for t in row[at:] if t not in (1, tokenizer.END)])
            for row, at in zip(rows, starts, strict=True)
        ]

    return answer


def talk(dialogues: Sequence[Sequence[str]], answer: Answer) -> list[str]:
    """The last answer of every dialogue; earlier answers are the model's own, too."""
    texts: list[list[str]] = [[] for _ in dialogues]
    for turn in range(max(map(len, dialogues))):
        running = [i for i, turns in enumerate(dialogues) if turn < len(turns)]
        for i in running:
            texts[i].append(dialogues[i][turn])
        for i, said in zip(running, answer([texts[i] for i in running]), strict=True):
            texts[i].append(said)
    return [said[-1] for said in texts]


def score(listed: dict[str, Any], answer: Answer) -> dict[str, tuple[int, int]]:
    """Right answers and questions, for each part of the list; prints the wrong answers."""
    questions, dialogues = listed["QUESTIONS"], listed["DIALOGUES"]
    said = [*answer([[q.text] for q in questions]), *talk([d.turns for d in dialogues], answer)]
    items = [*questions, *dialogues]
    right = [listed["is_right"](item, text) for item, text in zip(items, said, strict=True)]
    for item, text, good in zip(items, said, right, strict=True):
        if not good:
            print(f"wrong: {item[0]!r} -> {text!r}")
    count = len(questions)
    unseen = [
        good for question, good in zip(questions, right[:count], strict=True) if question.unseen
    ]
    return {
        "questions": (sum(right[:count]), count),
        "of these, unseen wordings": (sum(unseen), len(unseen)),
        "dialogues": (sum(right[count:]), len(dialogues)),
    }


def main() -> None:
    """Score the checkpoint named on the command line."""
    parser = argparse.ArgumentParser(description="Score a demo checkpoint.")
    parser.add_argument("folder", nargs="?", type=Path, default=PACKAGE / "demo")
    parser.add_argument("--questions", type=Path, default=heldout.QUESTIONS)
    options = parser.parse_args()
    listed = runpy.run_path(str(options.questions))
    for name, (right, of) in score(listed, answerer(options.folder)).items():
        print(f"{name}: {right} of {of}")


if __name__ == "__main__":
    main()
