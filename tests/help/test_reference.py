"""The generated pages are those that the program and its docstrings make now."""

from __future__ import annotations

import pytest

from edgesppo.dev.reference.__main__ import PAGES
from edgesppo.help.pages import FOLDER


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    written = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert PAGES[name]() == written, "run: python -m edgesppo.dev.reference"
