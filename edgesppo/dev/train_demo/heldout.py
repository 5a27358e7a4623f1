"""Check that the held-out wordings and values do not occur in the training data.

A text counts as producible if, reduced to its words, a grammar matches it with any words in the
slots, after any lead-in and before any tail. Grammars with the invented word {w} would match every
text and are left out; for those, whole texts are compared with sampled dialogues.
"""

from __future__ import annotations

import argparse
import random
import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.dev.train_demo import dialogues, wording
from edgesppo.dev.train_demo.values import HELD_OUT
from edgesppo.system.paths import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

QUESTIONS = PACKAGE.parent / "tests" / "support" / "demo_questions.py"


def produced(texts: Iterable[str]) -> list[str]:
    """Those of the texts that a grammar can produce."""
    lead = "|".join(re.escape(wording.plain(text)) for text in wording.LEAD_INS)
    tail = "|".join(re.escape(wording.plain(text)) for text in wording.TAILS)
    known = [
        re.compile(f"(?:(?:{lead}) )? *{wording.pattern(grammar)} *(?: (?:{tail}))?")
        for grammar in dialogues.grammars()
        if "{w}" not in grammar
    ]
    return [text for text in texts if any(regex.fullmatch(wording.plain(text)) for regex in known)]


def check(path: Path, samples: int = 20_000, seed: int = 0) -> list[str]:
    """Check the questions file at `path`, against this many sampled dialogues; a list of faults."""
    listed = runpy.run_path(str(path))
    unseen = [question.text for question in listed["QUESTIONS"] if question.unseen]
    faults = [f"worded as in training: {text}" for text in produced(unseen)]
    values = {value.lower() for value in listed["HELD_OUT_VALUES"]}
    if values != HELD_OUT:
        faults.append(f"HELD_OUT differs in {sorted(values ^ HELD_OUT)}")
    rng = random.Random(seed)
    turns = [turn for _ in range(samples) for turn in dialogues.dialogue(rng)]
    faults += [f"value in training: {value}" for value in sorted(dialogues.held_out_words(turns))]
    seen = {wording.plain(turn.user) for turn in turns}
    faults += [f"text in training: {text}" for text in unseen if wording.plain(text) in seen]
    return faults


def main() -> None:
    """Check the questions file named on the command line, and exit with its faults, if any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="?", type=Path, default=QUESTIONS)
    faults = check(parser.parse_args().questions)
    if faults:
        raise SystemExit("\n".join(faults))
    print("no held-out wording or value occurs in the training data")


if __name__ == "__main__":
    main()
