"""The README: its session is the program's own, and it can be read where only its text is."""

from __future__ import annotations

import re
import sys
from textwrap import dedent

import pytest

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


@pytest.mark.skipif(sys.platform == "win32", reason="recorded on a pseudo-terminal")
def test_its_session_is_what_the_program_shows_but_for_times() -> None:
    from tests.tools.record_session import record

    session = _SESSION.search(README)
    assert session is not None
    shown = MEASURED.sub("_", dedent(session[1])).splitlines()
    assert shown == MEASURED.sub("_", record()).splitlines()
