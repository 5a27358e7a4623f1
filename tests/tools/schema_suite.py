"""Check the grammars against the public JSON Schema Test Suite, which is not shipped.

    python -m tests.tools.schema_suite FOLDER

FOLDER holds `draft2020-12` and `draft7` as the JSON Schema Test Suite lays them out: `tests` in
its repository, `json/tests` in the sdist of jsonschema on PyPI. Verdicts on a schema:

    refused     edgesppo refuses it and names the unsupported keyword
    empty       edgesppo refuses it because nothing satisfies it, and the suite has no valid
                instance
    accepted    its grammar generates no instance that the suite calls invalid, and random texts
                of the grammar are valid for the package jsonschema with format checks
    wrong       anything else; then the exit status is 1

A grammar generates properties in the schema's order only, and only types that the schema
mentions. So it may not generate every instance that the suite calls valid: their number is shown,
but a missing one is not an error.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import random
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jsonschema

from edgesppo import schema
from edgesppo.errors import UsageError
from tests.support.gbnf import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

VALIDATORS = {
    "draft2020-12": jsonschema.Draft202012Validator,
    "draft7": jsonschema.Draft7Validator,
}
_DRAWN = 12  # random texts from each grammar
_MAX_TEXTS = 500  # spellings tried for one instance
_NOTHING = "nothing can satisfy it"


class Verdict(NamedTuple):
    """The verdict on one schema; `detail` is the refused keyword, or the fault."""

    name: str
    outcome: str
    detail: str = ""
    n_invalid: int = 0
    n_valid: int = 0
    n_made: int = 0  # valid ones that the grammar generates


def judged(
    case: dict[str, Any], draft: str, convert: Callable[[Any], str] = schema.grammar
) -> Verdict:
    """The verdict on one schema of the suite and its instances."""
    asked, name = case["schema"], case["description"]
    valid = [test["data"] for test in case["tests"] if test["valid"]]
    invalid = [test["data"] for test in case["tests"] if not test["valid"]]
    verdict = Verdict(name, "accepted", "", len(invalid), len(valid))
    try:
        reader = Reader(convert(asked))
    except UsageError as error:
        return verdict._replace(**_of_refusal(str(error), asked, valid))
    except Exception as error:  # a bug, but the other schemas are still checked
        return verdict._replace(outcome="wrong", detail=f"raises {error!r}")
    fault = _of_instances(reader, invalid) or _of_drawn(reader, asked, draft)
    if fault:
        return verdict._replace(outcome="wrong", detail=fault)
    return verdict._replace(n_made=sum(_made(reader, value) is not None for value in valid))


def _of_refusal(message: str, asked: Any, valid: list[Any]) -> dict[str, str]:
    said = message.partition(": ")[2].partition("; supported are")[0]
    if _NOTHING in said:
        if valid:
            return {"outcome": "wrong", "detail": f"{valid[0]!r} fits, but: {message}"}
        return {"outcome": "empty"}
    named = {
        name: re.search(rf"(?<![\w$-]){re.escape(name)}(?![\w-])", said) for name in _names(asked)
    }
    places = {name: match.start() for name, match in named.items() if match and name}
    if places:
        return {"outcome": "refused", "detail": min(places, key=lambda name: places[name])}
    return {"outcome": "wrong", "detail": f"names no keyword of the schema: {message}"}


def _names(value: Any) -> set[str]:
    """All property names in a schema, at any depth."""
    if isinstance(value, list):
        return set().union(*map(_names, value))
    return {*value}.union(*map(_names, value.values())) if isinstance(value, dict) else set()


def _of_instances(reader: Reader, invalid: list[Any]) -> str:
    for value in invalid:
        text = _made(reader, value)
        if text is not None:
            return f"makes {text}, which is invalid"
    return ""


def _of_drawn(reader: Reader, asked: Any, draft: str) -> str:
    kind = VALIDATORS[draft]
    validator = kind(asked, format_checker=kind.FORMAT_CHECKER)
    rng = random.Random(1)
    for _ in range(_DRAWN):
        text = reader.text(rng)
        try:
            if not validator.is_valid(json.loads(text)):
                return f"makes {text}, which is invalid"
        except re.error:
            return ""  # Python, and so jsonschema, does not support \c in patterns
    return ""


def _made(reader: Reader, value: Any) -> str | None:
    """A spelling of the value that the grammar matches; None if there is none."""
    texts = itertools.islice(spellings(value), _MAX_TEXTS)
    return next((text for text in texts if reader.reads(text)), None)


def spellings(value: Any) -> Iterator[str]:
    """The ways to write a value: properties in every order, with and without spaces and escapes."""
    for ordered in _orders(value):
        for separators in ((",", ":"), (", ", ": ")):
            yield json.dumps(ordered, ensure_ascii=False, separators=separators)
        if not str(ordered).isascii():
            yield json.dumps(ordered, separators=(",", ":"))


def _orders(value: Any) -> Iterator[Any]:
    """The value with object properties in every order, and numbers as int and as float."""
    if isinstance(value, list):
        yield from (list(items) for items in _every(value))
    elif isinstance(value, dict):
        for names in itertools.permutations(value):
            for values in _every(value[name] for name in names):
                yield dict(zip(names, values, strict=True))
    else:
        yield value
        if isinstance(value, float) and value.is_integer():
            yield int(value)
        elif isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
            yield float(value)


def _every(values: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """The product of the orders of several values, lazily, starting with the first of each."""
    first, *rest = [*values, None]
    if not rest:
        yield ()
        return
    for one in _orders(first):
        for others in _every(rest[:-1]):
            yield (one, *others)


def of_draft(folder: Path) -> Iterator[tuple[str, list[Verdict]]]:
    """The verdicts on every file in the folder of a draft, including optional ones."""
    for path in sorted(folder.rglob("*.json")):
        cases = json.loads(path.read_text(encoding="utf-8"))
        yield path.relative_to(folder).as_posix(), [judged(case, folder.name) for case in cases]


def report(folder: Path, show: Callable[[str], None] = print) -> bool:
    """Show the verdicts on the drafts in a folder; return whether none is wrong."""
    drafts = [folder / name for name in VALIDATORS if (folder / name).is_dir()]
    if not drafts:
        raise SystemExit(f"{folder}: expected a folder with {' or '.join(VALIDATORS)} in it")
    everything: list[Verdict] = []
    for draft in drafts:
        show(f"\n{draft.name:42} accepted  refused  empty  wrong   valid made")
        found = []
        for name, verdicts in of_draft(draft):
            show(_line(name, verdicts))
            found += verdicts
        show(_line("all", found))
        everything += found
    reasons = collections.Counter(v.detail for v in everything if v.outcome == "refused")
    show("\nrefused for: " + ", ".join(f"{name} {n}" for name, n in reasons.most_common()))
    wrong = [verdict for verdict in everything if verdict.outcome == "wrong"]
    for verdict in wrong:
        show(f"wrong: {verdict.name}: {verdict.detail}")
    return not wrong


def _line(name: str, verdicts: list[Verdict]) -> str:
    counts = collections.Counter(verdict.outcome for verdict in verdicts)
    valid = sum(v.n_valid for v in verdicts if v.outcome == "accepted")
    made = sum(v.n_made for v in verdicts)
    return (
        f"{name:42} {counts['accepted']:8} {counts['refused']:8} {counts['empty']:6} "
        f"{counts['wrong']:6} {made:7}/{valid}"
    )


def main() -> int:
    """Run the check; return 0 if nothing is wrong, else 1."""
    parser = argparse.ArgumentParser(description="Check the grammars against a schema test suite.")
    parser.add_argument("folder", type=Path)
    return 0 if report(parser.parse_args().folder) else 1


if __name__ == "__main__":
    sys.exit(main())
