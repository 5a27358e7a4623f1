"""Find help pages and examples by the word that a person types."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.errors import UsageError
from edgesppo.system.paths import PACKAGE
from edgesppo.system.suggest import did_you_mean
from edgesppo.system.validate import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = PACKAGE / "help"
EXAMPLES = FOLDER / "examples"
INDEX = "README"
_TOPIC = re.compile(r"^- \[([\w-]+)\]\(\1\.md\): (.+(?:\n  .+)*)", re.MULTILINE)
_HEADING = re.compile(r"^#+ (.*)", re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]]+)\]\((?!https?:|mailto:)([^()\s]+)\)")
_MOST_PLACES = 3
# Words that people try first, and the page that they mean.
_MEANT = {
    "serve": "server",
    "serving": "server",
    "pipes": "run",
    "api": "python",
    "library": "python",
    "examples": "embedding",
    "example": "embedding",
    "adapters": "convert",
    "lora": "convert",
    "ray": "batch",
    "locks": "models",
    "pull": "models",
    "eval": "quality",
    "calibrate": "quality",
    "variables": "environment",
    "files": "environment",
    "errors": "troubleshooting",
    "install": "first-steps",
    "start": "first-steps",
    "tuning": "speed",
    "drafts": "speed",
    "schema": "sampling",
}


@dataclass(frozen=True)
class Topic:
    """A page's name, and the line that the index has for it."""

    name: str
    summary: str


def topics() -> list[Topic]:
    """All pages, in the order of the index."""
    found = _TOPIC.findall(_read(INDEX))
    return [Topic(name, " ".join(summary.split())) for name, summary in found]


def index() -> str:
    """The page that lists the others."""
    return for_terminal(_TOPIC.sub(r"- \1: \2", _read(INDEX)))


def page(topic: str) -> str | None:
    """The Markdown of a page; None if there is none of that name."""
    word = topic.lower().removesuffix(".md")
    names = {known.name for known in topics()}
    name = word if word in names else _MEANT.get(word)
    return for_terminal(_read(name)) if name in names else None


def example(name: str) -> str | None:
    """The text of an example by its file's name, with or without .py; None if there is none."""
    files = [path for path in EXAMPLES.iterdir() if path.is_file()]
    known = {path.stem: path for path in files} | {path.name: path for path in files}
    path = known.get(name)
    return path.read_text(encoding="utf-8") if path else None


def unknown(topic: str, commands: Iterable[str]) -> UsageError:
    """The error for a word that is no topic: what it may have meant, or where it is spoken of."""
    places = _places(topic)
    if places:
        hint = f"; it is in: {', '.join(places)}"
    else:
        known = [*(known.name for known in topics()), *_MEANT, *commands]
        hint = did_you_mean(topic, known)
    return UsageError(f"there is no help on {quoted(topic)}{hint}; edgesppo help lists the topics")


def _places(word: str) -> list[str]:
    """The pages that have the word in a heading; else those that have it most often."""
    texts = {known.name: _read(known.name) for known in topics()}
    pattern = re.compile(rf"(?<!\w){re.escape(word)}", re.IGNORECASE)
    in_heading = [
        name
        for name, text in texts.items()
        if any(pattern.search(heading) for heading in _HEADING.findall(text))
    ]
    whole = re.compile(rf"{pattern.pattern}(?!\w)", re.IGNORECASE)
    counts = {name: n for name, text in texts.items() if (n := len(whole.findall(text)))}
    return in_heading or sorted(counts, key=lambda name: -counts[name])[:_MOST_PLACES]


def for_terminal(text: str) -> str:
    """A page whose links to other files say what to type instead."""
    return _LINK.sub(_instead, text)


def _instead(link: re.Match[str]) -> str:
    label, target = link[1], link[2].partition("#")[0]
    plain = label.strip("`")
    if not target:
        return label
    if target.endswith(".md") and "/" not in target:
        name = target.removesuffix(".md")
        return f"`edgesppo help {name}`" if plain == name else f"{label} (`edgesppo help {name}`)"
    if target.startswith("examples/"):
        return f"{label} (`edgesppo help {posixpath.basename(target)}`)"
    path = posixpath.normpath(posixpath.join("edgesppo/help", target))
    return f"{label} (in the source: {path})"


def _read(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")
