"""Train the demo: its tokenizer, then the model, and write the checkpoint.

python -m edgesppo.dev.train_demo.train --out DIR --seed N

With `--size large` it is a larger model with the demo's tokenizer, to measure quantisation on; with
`--minutes N` the training ends in time, and there is a checkpoint of it every few minutes.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgesppo.demo
from edgesppo.dev.train_demo import checkpoint, dialogues, heldout, tokenizer
from edgesppo.dev.train_demo.extra import need
from edgesppo.dev.train_demo.muon import Muon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = 2500
MATRIX_RATE, OTHER_RATE = 2e-3, 1.5e-3
WARM_STEPS, DECAY = 100, 0.12  # steps; share of the run
SAVE_EVERY = 180.0  # seconds between two checkpoints of a run that is limited by time
DEMO = Path(edgesppo.demo.__path__[0])
BATCH_TOKENS = 4608
WIDTHS = (48, 96, 160, 256, 512)  # padded lengths; few, because each is compiled separately
REST = 0.1  # share of the positions outside the answers that count in the loss
Row = tuple[list[int], list[bool]]


def corpus(seed: int) -> Iterator[str]:
    """Texts to train the tokenizer on, without rare words (mostly invented names and typos)."""
    rng = random.Random(seed)
    turns = [turn for _ in range(20_000) for turn in dialogues.dialogue(rng)]
    texts = [text for turn in turns for text in turn]
    counts = Counter(word for text in texts for word in text.split())
    for text in texts:
        yield " ".join(word for word in text.split(" ") if counts[word] > 4 or "\n" in word)


def encode(turns: list[dialogues.Turn], processor: Any) -> Row:
    """Token ids of a dialogue, and for each whether it belongs to an answer."""
    ids, answered = [2], [False]

    def add(part: list[int], answer: bool) -> None:
        ids.extend(part)
        answered.extend([answer] * len(part))

    user, model = processor.encode("user"), processor.encode("model")
    for turn in turns:
        add([tokenizer.START, *user, tokenizer.NEWLINE], False)
        add([*processor.encode(turn.user), tokenizer.END, tokenizer.NEWLINE], False)
        add([tokenizer.START, *model, tokenizer.NEWLINE], False)
        add([*processor.encode(turn.model), tokenizer.END], True)
        add([tokenizer.NEWLINE], False)
    return ids[: checkpoint.CONTEXT], answered[: checkpoint.CONTEXT]


def batches(processor: Any, seed: int, n_tokens: int) -> Iterator[tuple[int, list[Row]]]:
    """Endless batches of dialogues of similar length, each with the width to pad them to."""
    rng = random.Random(seed + 1)
    waiting: dict[int, list[Row]] = {width: [] for width in WIDTHS}
    while True:
        row = encode(dialogues.dialogue(rng), processor)
        width = next(width for width in WIDTHS if len(row[0]) <= width)
        waiting[width].append(row)
        if len(waiting[width]) == n_tokens // width:
            yield width, waiting[width]
            waiting[width] = []


def loss_of(model: Any, body: Any, width: int, rows: list[Row], torch: Any) -> Any:
    """Mean cross-entropy over the answers and a random share of the other positions."""
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    answered = torch.tensor([flags + [False] * (width - len(flags)) for _, flags in rows])
    chosen = (answered | ((torch.rand(ids.shape) < REST) & (ids != 0)))[:, 1:]
    hidden = body(input_ids=ids).last_hidden_state[:, :-1][chosen]
    logits = model.lm_head(hidden).float()
    cap = checkpoint.CONFIG["final_logit_softcapping"]
    logits = torch.tanh(logits / cap) * cap
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][chosen])


@dataclass(frozen=True)
class Plan:
    """How to train: at most so many steps and, if given, minutes."""

    out: Path
    size: str
    seed: int
    steps: int
    minutes: float | None
    batch_tokens: int
    compiled: bool
    float32: bool
    start: Path | None

    def left(self, step: int, seconds: float) -> float:
        """The share of the run that is left."""
        by_time = 1.0 if self.minutes is None else 1 - seconds / (60 * self.minutes)
        return max(0.0, min(1 - step / self.steps, by_time))


def rate(step: int, left: float) -> float:
    """Learning rate at a step, as a share of the peak: warm-up, constant, decay to 0."""
    return min(1.0, step / WARM_STEPS, left / DECAY)


def fit(
    model: Any,
    rows: Iterator[tuple[int, list[Row]]],
    plan: Plan,
    save: Callable[[], None],
    torch: Any,
) -> None:
    """Train the model in place: Muon for matrices, AdamW for the rest."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim < 2 or "embed" in name]
    muon = Muon(matrices, torch, torch.float32 if plan.float32 else torch.bfloat16)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01)
    began = saved = time.monotonic()
    body = torch.compile(model.model, dynamic=False) if plan.compiled else model.model
    step, left = 0, 1.0
    while left > 0:
        step += 1
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not plan.float32):
            loss = loss_of(model, body, *next(rows), torch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        seconds = time.monotonic() - began
        left = plan.left(step, seconds)
        share = rate(step, left)
        muon.step(MATRIX_RATE * share)
        adam.param_groups[0]["lr"] = OTHER_RATE * share
        adam.step()
        model.zero_grad()
        if step % 50 == 0 or left == 0:
            print(f"step {step}/{plan.steps}  loss {loss.item():.4f}  {seconds:.0f} s", flush=True)
        if plan.minutes is not None and time.monotonic() - saved > SAVE_EVERY:
            save()
            saved = time.monotonic()


def train(plan: Plan) -> None:
    """Train and write the checkpoint, from scratch or from the checkpoint `plan.start`."""
    if plan.size == "demo" and heldout.QUESTIONS.exists():
        faults = heldout.check(heldout.QUESTIONS, seed=plan.seed)
        if faults:
            raise SystemExit("\n".join(faults))
    torch, transformers = need("torch"), need("transformers")
    spm, save_file = need("sentencepiece"), need("safetensors.torch").save_file
    torch.manual_seed(plan.seed)
    torch.set_num_threads(2)
    known = plan.start or (None if plan.size == "demo" else DEMO)
    if known is None:
        spm_bytes = tokenizer.build(corpus(plan.seed), spm)
    else:
        spm_bytes = (known / "tokenizer.model").read_bytes()
    attention = {"attn_implementation": "eager"}
    if plan.start is None:
        config = transformers.Gemma2Config(**checkpoint.config(plan.size), **attention)
        model = transformers.Gemma2ForCausalLM(config)
    else:
        model = transformers.Gemma2ForCausalLM.from_pretrained(plan.start, **attention)
    model = model.float().train()
    processor = spm.SentencePieceProcessor(model_proto=spm_bytes)

    def save() -> None:
        config = checkpoint.config(plan.size)
        checkpoint.write(plan.out, model, spm_bytes, config, torch=torch, save_file=save_file)

    fit(model, batches(processor, plan.seed, plan.batch_tokens), plan, save, torch)
    save()


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train the demo checkpoint.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--size", choices=sorted(checkpoint.SIZES), default="demo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--minutes", type=float, help="end after so many, if that is earlier")
    parser.add_argument("--batch-tokens", type=int, default=BATCH_TOKENS)
    parser.add_argument("--start", type=Path, help="checkpoint folder to continue from")
    parser.add_argument(
        "--no-compile", dest="compiled", action="store_false", help="slower, needs no C++ compiler"
    )
    parser.add_argument("--float32", action="store_true", help="faster on some processors")
    train(Plan(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
