"""Count the Python calls that a token takes between two chunks of an answer, and their files.

    python -m tests.benchmarks.token_path FILE.gguf [--show] [--drafts]

One sequence, greedy, in the middle of its answer, through `Chat.stream`. `sys.setprofile` counts
calls of Python functions (resuming a generator counts as one) and, separately, of C functions. The
result is the median over the tokens of the answer.
"""

from __future__ import annotations

import argparse
import collections
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo import Chat, SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama.model import Model
from edgesppo.planning.run_config import DEFAULT_ROW_COSTS

if TYPE_CHECKING:
    from types import FrameType

QUESTION = "Tell me how to convert a checkpoint, please, and what I need for it."
# Tokens before the first one that is counted; the prefill is over by then.
BEGINNING = 3


@dataclass
class TokenPath:
    """The calls for one token: (file, function) of each Python call, and the number of C calls."""

    calls: list[tuple[str, str]]
    n_native: int

    @property
    def files(self) -> set[str]:
        """The files of edgesppo among them, without those of the standard library."""
        return {file for file, _ in self.calls if "edgesppo" in Path(file).parts}


def follow(chat: Chat, question: str = QUESTION) -> list[TokenPath]:
    """The calls for each token of an answer, without the first few and the last."""
    found: list[TokenPath] = []
    stream = chat.stream(question)
    for _ in range(BEGINNING):
        next(stream)
    while True:
        path = TokenPath([], 0)

        def note(frame: FrameType, event: str, _arg: Any, path: TokenPath = path) -> None:
            if event == "call":
                code = frame.f_code
                path.calls.append((code.co_filename, code.co_name))
            elif event == "c_call":
                path.n_native += 1

        sys.setprofile(note)
        try:
            chunk = next(stream)
        finally:
            sys.setprofile(None)
        if chunk.finish_reason is not None:
            stream.close()
            return found
        path.n_native -= 2  # of next() and setprofile() themselves
        found.append(path)


def typical(engine: Engine) -> TokenPath:
    """The median token of an answer that is generated for the second time (warm caches)."""
    chat = Chat(engine, SamplingParams(temperature=0))
    chat.ask(QUESTION)
    chat.clear()
    paths = sorted(follow(chat), key=lambda path: len(path.calls))
    return paths[len(paths) // 2]


def main() -> None:
    """Print the calls for a token."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--show", action="store_true", help="every call, in order")
    parser.add_argument("--drafts", action="store_true", help="with speculative drafts")
    options = parser.parse_args()
    model = Model(options.file)
    engine = Engine(model, draft_costs=DEFAULT_ROW_COSTS if options.drafts else None)
    path = typical(engine)
    engine.close()
    model.close()
    if options.show:
        for file, name in path.calls:
            print(f"  {Path(file).stem}.{name}")
    most = collections.Counter(Path(file).stem for file, _ in path.calls).most_common(4)
    print(
        f"  a token: {len(path.calls)} Python calls in {len(path.files)} files of edgesppo, "
        f"{path.n_native} C calls; most in {', '.join(f'{stem} ({n})' for stem, n in most)}"
    )


if __name__ == "__main__":
    main()
