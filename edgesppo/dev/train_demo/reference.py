"""Compute the demo's reference logits: what transformers computes for one long dialogue.

python -m edgesppo.dev.train_demo.reference writes tests/data/demo_reference_logits.npz with
`ids` (int32), `positions` (int32) and `logits` (float32, one row per position), from a
float32 eager run of Gemma2ForCausalLM with the bf16 weights, soft-caps included.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgesppo.dev.train_demo.extra import need
from edgesppo.dev.train_demo.score import prompt_ids
from edgesppo.system.paths import PACKAGE

LARGEST_FILE = 1_500_000
FOLDER = PACKAGE / "demo"
OUT = PACKAGE.parent / "tests" / "data" / "demo_reference_logits.npz"
# User, model, user, ...: several turns, so that the text is far longer than the window of 64.
CHAT = [
    "Hello! My name is Ada and I live in Turin.",
    "Nice to meet you, Ada. I will remember that you live in Turin.",
    "What is the capital of France?",
    "The capital of France is Paris.",
    "How do I convert a checkpoint?",
    "Run edgesppo convert SRC -o OUT.gguf to turn a checkpoint into a GGUF file.",
    "What is 12 plus 7?",
    "12 plus 7 is 19.",
    "What is Q4_K_M?",
    "Q4_K_M is a quantisation type: most weights are stored in about 4.5 bits each.",
    "Do you remember where I live?",
    "You live in Turin.",
    "And what is my name?",
]


def logits_of(folder: Path, ids: list[int], **changes: Any) -> Any:
    """Float32 logits, [ids, vocabulary], of the checkpoint; `changes` override its config."""
    torch, transformers = need("torch"), need("transformers")
    config = transformers.Gemma2Config.from_pretrained(folder, **changes)
    model = transformers.Gemma2ForCausalLM.from_pretrained(
        folder, config=config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def write(folder: Path, out: Path) -> None:
    """Write the reference file; only every 2nd or 4th position if it would be too large."""
    numpy, spm = need("numpy"), need("sentencepiece")
    processor = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids = prompt_ids(CHAT, processor)
    logits = logits_of(folder, ids)
    unwindowed = logits_of(folder, ids, sliding_window=100_000)
    window = numpy.abs(logits - unwindowed).max(axis=1)
    if window[:64].max() > 1e-3 or window[64:].max() < 1e-2:
        raise SystemExit("the sliding window is not applied as expected")
    out.parent.mkdir(parents=True, exist_ok=True)
    for stride in (1, 2, 4):
        positions = numpy.arange(len(ids) - 1, -1, -stride, dtype=numpy.int32)[::-1].copy()
        numpy.savez_compressed(
            out,
            ids=numpy.array(ids, dtype=numpy.int32),
            positions=positions,
            logits=logits[positions].astype(numpy.float32),
        )
        if out.stat().st_size <= LARGEST_FILE:
            break
    print(
        f"{len(ids)} tokens, every {stride}. position, {out.stat().st_size:,} bytes; "
        f"without the window logits differ by up to {window.max():.3f}"
    )


def main() -> None:
    """Write the reference file for the checkpoint named on the command line."""
    parser = argparse.ArgumentParser(description="Write the demo's reference logits.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    write(options.folder, options.out)


if __name__ == "__main__":
    main()
