"""The README is short and leads on; the chat that the manual shows is the program's own."""

from __future__ import annotations

import re
import sys

import pytest

from edgesppo.help import pages
from edgesppo.lockfile.toml import tomllib
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHAT = (pages.FOLDER / "chat.md").read_text(encoding="utf-8")
# What differs from run to run, and between machines.
MEASURED = re.compile(r"[\d.,]+(?= s\b| t/s)|(?<=\| )[^|]*(?= \| loaded)")
_SESSION = re.compile(r"```text\n(.*?)```", re.DOTALL)


def test_a_newcomer_reads_it_in_five_minutes() -> None:
    assert README.count("\n") < 150


def test_it_leads_to_the_first_steps_and_to_every_topic() -> None:
    for page in ("first-steps", pages.INDEX):
        assert f"](edgesppo/help/{page}.md)" in README
    assert "`edgesppo help TOPIC`" in README


def test_every_extra_that_it_or_a_message_names_can_be_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "edgesppo").rglob("*.py")]
    manual = [path.read_text(encoding="utf-8") for path in pages.FOLDER.glob("*.md")]
    named = re.findall(r"(?:edgesppo|\"\.)\[([a-z]+)\]", "\n".join([README, *manual, *sources]))
    assert {"fast", "plot", "ray", "server"} <= set(named)
    assert set(named) <= set(project["optional-dependencies"])


@pytest.mark.skipif(sys.platform == "win32", reason="recorded on a pseudo-terminal")
def test_its_session_is_what_the_program_shows_but_for_times() -> None:
    from tests.tools.record_session import record

    session = _SESSION.search(CHAT)
    assert session is not None
    shown = MEASURED.sub("_", session[1]).splitlines()
    assert shown == MEASURED.sub("_", record()).splitlines()
