"""Train the demo: its tokenizer, then the model, and write the checkpoint.

python -m edgesppo.dev.train_demo.train --out DIR --seed N
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.dev.train_demo import checkpoint, dialogues, heldout, tokenizer
from edgesppo.dev.train_demo.extra import need
from edgesppo.dev.train_demo.muon import Muon

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 2500
MATRIX_RATE, OTHER_RATE = 2e-3, 1.5e-3
WARM_STEPS, DECAY_STEPS = 100, 300
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


def batches(processor: Any, seed: int) -> Iterator[tuple[int, list[Row]]]:
    """Endless batches of dialogues of similar length, each with the width to pad them to."""
    rng = random.Random(seed + 1)
    waiting: dict[int, list[Row]] = {width: [] for width in WIDTHS}
    while True:
        row = encode(dialogues.dialogue(rng), processor)
        width = next(width for width in WIDTHS if len(row[0]) <= width)
        waiting[width].append(row)
        if len(waiting[width]) == BATCH_TOKENS // width:
            yield width, waiting[width]
            waiting[width] = []


def loss_of(model: Any, body: Any, width: int, rows: list[Row], torch: Any) -> Any:
    """Mean cross-entropy over the answers and a random share of the other positions."""
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    answered = torch.tensor([flags + [False] * (width - len(flags)) for _, flags in rows])
    chosen = (answered | ((torch.rand(ids.shape) < REST) & (ids != 0)))[:, 1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = body(input_ids=ids).last_hidden_state[:, :-1][chosen]
        logits = model.lm_head(hidden).float()
    cap = checkpoint.CONFIG["final_logit_softcapping"]
    logits = torch.tanh(logits / cap) * cap
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][chosen])


def rate(step: int, steps: int) -> float:
    """Learning rate at a step, as a share of the peak: warm-up, constant, decay to 0."""
    return min(1.0, step / WARM_STEPS, (steps - step) / DECAY_STEPS)


def fit(model: Any, processor: Any, seed: int, steps: int, compiled: bool, torch: Any) -> None:
    """Train the model in place: Muon for matrices, AdamW for the rest, bf16 where that is safe."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim < 2 or "embed" in name]
    muon = Muon(matrices, torch)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01)
    began = time.monotonic()
    stream = batches(processor, seed)
    body = torch.compile(model.model, dynamic=False) if compiled else model.model
    for step in range(1, steps + 1):
        loss = loss_of(model, body, *next(stream), torch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        share = rate(step, steps)
        muon.step(MATRIX_RATE * share)
        adam.param_groups[0]["lr"] = OTHER_RATE * share
        adam.step()
        model.zero_grad()
        if step % 50 == 0 or step == steps:
            seconds = time.monotonic() - began
            print(f"step {step}/{steps}  loss {loss.item():.4f}  {seconds:.0f} s", flush=True)


def train(out: Path, seed: int, steps: int, compiled: bool, start: Path | None) -> None:
    """Train and write the checkpoint `out`, from scratch or from the checkpoint `start`."""
    faults = heldout.check(heldout.QUESTIONS, seed=seed) if heldout.QUESTIONS.exists() else []
    if faults:
        raise SystemExit("\n".join(faults))
    torch, transformers = need("torch"), need("transformers")
    spm, save_file = need("sentencepiece"), need("safetensors.torch").save_file
    torch.manual_seed(seed)
    torch.set_num_threads(2)
    if start is None:
        spm_bytes = tokenizer.build(corpus(seed), spm)
        config = transformers.Gemma2Config(**checkpoint.CONFIG, attn_implementation="eager")
        model = transformers.Gemma2ForCausalLM(config)
    else:
        spm_bytes = (start / "tokenizer.model").read_bytes()
        model = transformers.Gemma2ForCausalLM.from_pretrained(start, attn_implementation="eager")
    model = model.float().train()
    processor = spm.SentencePieceProcessor(model_proto=spm_bytes)
    fit(model, processor, seed, steps, compiled, torch)
    checkpoint.write(out, model, spm_bytes, torch=torch, save_file=save_file)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train the demo checkpoint.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--start", type=Path, help="checkpoint folder to continue from")
    parser.add_argument("--no-compile", action="store_true", help="slower, needs no C++ compiler")
    options = parser.parse_args()
    train(options.out, options.seed, options.steps, not options.no_compile, options.start)


if __name__ == "__main__":
    main()
