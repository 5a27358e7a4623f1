"""Measure building the prompt of a turn after a long history, against tokenising all of it.

    python -m tests.benchmarks.prompt [--tokens N]

Uses the demo's vocabulary in a context of 8,192 tokens. The history has N tokens (5,288); its
answers carry their token ids, or only text, as in a chat from another model. Rounds alternate
between building the prompt of a new message as a chat does, and tokenising the same prompt
completely with `template.encode`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgesppo
from edgesppo.chat import template
from edgesppo.chat.history import History
from edgesppo.chat.messages import Message
from edgesppo.llama.model import Model
from edgesppo_convert import convert
from tests.benchmarks.record import Report, argument_parser

if TYPE_CHECKING:
    from collections.abc import Callable

DEMO = Path(edgesppo.__file__).parent / "demo"
N_CTX, TOKENS = 8192, 5288
ASKED = [
    "What is the capital of France?",
    "Tell me how to convert a checkpoint, please, and what I need for it.",
    "My name is Ada. Who are you, and what can you do for me on a machine like mine?",
    "What is 4 plus 3?",
]
ANSWER = "The capital of France is Paris. To convert a checkpoint, name its folder and a file. " * 2


def main() -> None:
    """Run the measurement for both kinds of history."""
    parser = argument_parser(__doc__, rounds=30)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of the history")
    options = parser.parse_args()
    report = Report(options)
    with tempfile.TemporaryDirectory() as folder:
        model = Model(long_demo(Path(folder)), vocabulary_only=True)
        for with_ids in (True, False):
            messages = history(model, options.tokens, with_ids=with_ids)
            measure(report, model, messages, options.rounds, with_ids=with_ids)
        model.close()


def long_demo(folder: Path) -> Path:
    """The demo, converted with its context length set to `N_CTX`."""
    ignored = shutil.ignore_patterns("training", "*.py")
    source = Path(shutil.copytree(DEMO, folder / "demo", ignore=ignored))
    config = json.loads((source / "config.json").read_text())
    config["max_position_embeddings"] = N_CTX
    (source / "config.json").write_text(json.dumps(config))
    return convert(source, folder / "demo.gguf").output


def history(model: Model, n_tokens: int, *, with_ids: bool) -> list[Message]:
    """Turns of about `n_tokens` tokens in total."""
    ids = tuple(model.tokenize(ANSWER.strip())) if with_ids else None
    messages: list[Message] = []
    while len(template.encode(model, [*messages, Message("user", "")])) < n_tokens:
        asked = ASKED[len(messages) // 2 % len(ASKED)]
        messages += [Message("user", asked), Message("assistant", ANSWER, ids)]
    return messages


def measure(
    report: Report, model: Model, messages: list[Message], rounds: int, *, with_ids: bool
) -> None:
    """Compare the time to build the prompt of a turn after these messages."""
    chat, room = History(model, messages), N_CTX * 3 // 4
    made: list[list[int]] = []

    def fit() -> None:
        made.append(chat.fit(Message("user", ASKED[1]), len(messages), room)[0])

    def encode() -> None:
        made.append(template.encode(model, [*messages, Message("user", ASKED[1])]))

    fit()  # encodes the history, once
    fits, wholes = list[float](), list[float]()
    for _ in range(rounds):
        fits.append(_milliseconds(fit))
        wholes.append(_milliseconds(encode))
    assert all(ids == made[0] for ids in made), "both ways give the same prompt"
    kind = "with their tokens" if with_ids else "as texts"
    report.compare(
        *(f"prompt of a turn after {len(messages) // 2}, answers {kind}", "ms", fits),
        *("tokenising all", wholes),
        rival=False,
        note=f"{len(made[0]):,} tokens; calls of the tokenizer: {_calls(model, fit)}",
    )


def _milliseconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def _calls(model: Model, work: Callable[[], None]) -> int:
    calls: list[Any] = []
    tokenize = model.tokenize

    def counted(text: str | bytes) -> list[int]:
        calls.append(text)
        return tokenize(text)

    model.tokenize = counted  # type: ignore[method-assign]
    try:
        work()
    finally:
        del model.tokenize
    return len(calls)


if __name__ == "__main__":
    main()
