"""The README: its session is the program's own, and it can be read where only its text is."""

from __future__ import annotations

import re
import sys
from textwrap import dedent

import pytest

from edgesppo.lockfile.toml import tomllib
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
# What differs from run to run, and between machines.
MEASURED = re.compile(r"[\d.,]+(?= s\b| t/s)|(?<=\| )[^|]*(?= \| loaded)")
_SESSION = re.compile(r"\n## Chatting\n[^#]*?\n\n((?: {4}.*\n)+)")


def test_it_links_to_nothing_that_a_package_index_lacks() -> None:
    targets = re.findall(r"\]\(([^)]*)\)|\]:\s*(\S+)|(?:src|href)=[\"']?([^\"' >]+)", README)
    found = ["".join(groups) for groups in targets]
    assert len(found) >= 3
    assert [target for target in found if not target.startswith("https://")] == []


def test_every_extra_that_it_or_a_message_names_can_be_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "edgesppo").rglob("*.py")]
    named = re.findall(r"(?:edgesppo|\"\.)\[([a-z]+)\]", "\n".join([README, *sources]))
    assert {"fast", "plot", "ray", "server"} <= set(named)
    assert set(named) <= set(project["optional-dependencies"])


@pytest.mark.skipif(sys.platform == "win32", reason="recorded on a pseudo-terminal")
def test_its_session_is_what_the_program_shows_but_for_times() -> None:
    from tests.tools.record_session import record

    session = _SESSION.search(README)
    assert session is not None
    shown = MEASURED.sub("_", dedent(session[1])).splitlines()
    assert shown == MEASURED.sub("_", record()).splitlines()
