"""`edgesppo help`: topics are found, drawn on a terminal, and plain elsewhere."""

from __future__ import annotations

import json
import re
import sys

import pytest

from edgesppo.cli import COMMANDS
from edgesppo.help import pages
from tests.support.command_line import one_line_error, run
from tests.support.pty_terminal import Terminal

TOPICS = [topic.name for topic in pages.topics()]
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


def test_the_index_lists_every_page_once_with_a_line() -> None:
    files = {path.stem for path in pages.FOLDER.glob("*.md")} - {pages.INDEX}
    assert sorted(TOPICS) == sorted(files)
    assert all(10 < len(topic.summary) < 90 for topic in pages.topics())
    shown = run("help").output
    assert [name for name in TOPICS if f"- {name}: " not in shown] == []


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_is_printed_as_markdown_where_there_is_no_terminal(topic: str) -> None:
    result = run("help", topic)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("# ")
    assert "\x1b" not in result.stdout
    assert not re.search(r"\]\((?!https:)", result.stdout), "a link leads nowhere on a terminal"


def test_a_page_is_found_by_what_people_call_it() -> None:
    assert run("help", "serve").stdout == run("help", "server").stdout
    assert run("help", "CHAT").stdout == run("help", "chat.md").stdout == run("help", "chat").stdout
    assert set(pages._MEANT.values()) <= set(TOPICS)
    assert not set(pages._MEANT) & set(TOPICS)


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - set(TOPICS) - set(pages._MEANT)))
def test_a_command_without_a_page_explains_itself(command: str) -> None:
    assert f"Usage: edgesppo {command}" in run("help", command).stdout


def test_a_part_of_a_command_explains_itself() -> None:
    assert "Usage: edgesppo eval divergence" in run("help", "eval", "divergence").stdout


def test_an_example_is_printed_as_it_is() -> None:
    for path in pages.EXAMPLES.iterdir():
        if path.is_file():
            assert run("help", path.name).stdout == path.read_text(encoding="utf-8")
    assert run("help", "script").stdout == run("help", "script.py").stdout
    assert json.loads(run("help", "notebook.ipynb").stdout)["nbformat"] == 4


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("convrt", "(did you mean convert?)"),
        ("trubleshooting", "(did you mean troubleshooting?)"),
        ("raspberry", "it is in: hardware"),
        ("CUDA", "it is in: hardware"),
        ("seed", "sampling"),
        ("logits", "it is in: "),
        ("eval nothing", "edgesppo help lists the topics"),
        ("../README", "edgesppo help lists the topics"),
        ("examples/script.py", "edgesppo help lists the topics"),
        ("x\x1b[2J", r"\x1b"),
    ],
)
def test_what_is_no_topic_is_answered_with_the_nearest(word: str, hint: str) -> None:
    assert hint in one_line_error(run("help", *word.split()))


def test_links_say_what_to_type() -> None:
    text = "[chat](chat.md), [the chat](chat.md#saved-chats), [a](#b), [x](https://example.org)"
    shown = pages.for_terminal(text)
    assert shown.startswith("`edgesppo help chat`, the chat (`edgesppo help chat`), a, [x](https:")
    assert pages.for_terminal("[S](../../.github/S.md)") == "S (in the source: .github/S.md)"
    shown = pages.for_terminal("[D](../demo/README.md)")
    assert shown == "D (in the source: edgesppo/demo/README.md)"
    shown = pages.for_terminal("[script.py](examples/script.py)")
    assert shown == "script.py (`edgesppo help script.py`)"


def rows(topic: str, lines: int = 24, **environment: str) -> list[str]:
    """What a terminal shows of a page, with what has scrolled off."""
    command = [sys.executable, "-m", "edgesppo", "help", topic]
    terminal = Terminal(command, columns=80, lines=lines, **environment)
    assert terminal.close() == 0
    return terminal.rows()


@posix
def test_a_long_page_goes_through_the_pager_drawn_and_wrapped() -> None:
    shown = rows("security", PAGER="cat")
    assert shown[0] == "Security"
    assert "• Nothing is downloaded but by pull, lock, convert of a repository and build;" in shown
    assert not [row for row in shown if "**" in row or "`" in row or row.startswith("#")]
    assert max(map(len, shown)) < 80


@posix
def test_a_page_that_fits_needs_no_pager() -> None:
    shown = rows("security", lines=60, PAGER="sh -c 'echo a pager'")
    assert shown[0] == "Security"
    assert "a pager" not in shown


@posix
def test_without_colours_a_page_is_plain() -> None:
    assert rows("security", lines=60, NO_COLOR="1")[:1] == ["# Security"]
