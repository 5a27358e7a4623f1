"""Sort text files by topic: a script that asks for values of a fixed form.

    python script.py notes.txt mail.txt
    python script.py --model sppo-iter3 *.txt > topics.jsonl

Prints one JSON object a line: the file and its topic. Errors are one line, and exit code 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import edgesppo

TOPICS = ["travel", "work", "family", "money", "other"]
SCHEMA = {
    "type": "object",
    "properties": {"topic": {"enum": TOPICS}},
    "required": ["topic"],
    "additionalProperties": False,
}
MOST = 800  # characters of a file that are read: the context is limited, the demo's to 512 tokens


def main() -> None:
    """Load the model once, and ask one question for each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    try:
        with edgesppo.load(options.model) as model:
            for path in options.files:
                text = path.read_text(encoding="utf-8", errors="replace")[:MOST]
                question = f"What is the topic of this text?\n\n{text}"
                found = model.ask(question, schema=SCHEMA, temperature=0)
                print(json.dumps({"file": path.name, **found}), flush=True)
    except (edgesppo.EdgesppoError, OSError) as error:
        sys.exit(f"script.py: {error}")


if __name__ == "__main__":
    main()
