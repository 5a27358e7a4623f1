"""The chat page's files: small, whole, and without what could run or fetch anything else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from edgesppo.server.app import create_app
from edgesppo.server.page_route import FOLDER, HEADERS
from edgesppo.server.settings import ServerSettings

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

FILES = sorted(FOLDER.iterdir())
INDEX = (FOLDER / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_a_file_is_short_and_neither_makes_markup_of_text_nor_names_another_server(
    file: Path,
) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 300
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in text
    addresses = re.findall(r"(?:src|href|url|fetch|import)\W{1,3}https?://[^\s\"'`)]+", text)
    assert not addresses


def test_the_page_has_no_inline_script_or_style() -> None:
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", INDEX)
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_every_file_is_used_and_every_file_that_is_used_is_there() -> None:
    names = {file.name for file in FILES} - {"index.html"}
    used = set(re.findall(r'(?:src|href)="page/([\w.]+)"', INDEX))
    for file in FILES:
        if file.suffix == ".js":
            used |= set(re.findall(r'from "\./([\w.]+)"', file.read_text(encoding="utf-8")))
    assert used == names


def test_every_id_that_a_script_looks_for_is_on_the_page() -> None:
    there = set(re.findall(r'\bid="([\w-]+)"', INDEX))
    wanted: set[str] = set()
    for file in FILES:
        if file.suffix == ".js":
            wanted |= set(re.findall(r'byId\("([\w-]+)"\)', file.read_text(encoding="utf-8")))
    assert wanted - there <= {"sampling-stop"}  # which a script makes


def test_the_server_gives_the_page_with_its_policy_and_nothing_beside_it() -> None:
    def load() -> LoadedModel:
        raise AssertionError("the page needs no model")

    client = TestClient(create_app(load, ServerSettings()), base_url="http://localhost")
    for file in FILES:
        answer = client.get("/" if file.name == "index.html" else f"/page/{file.name}")
        assert (answer.status_code, answer.content) == (200, file.read_bytes())
        assert answer.headers.items() >= {k.lower(): v for k, v in HEADERS.items()}.items()
    for path in ("/page/../page_route.py", "/page/%2e%2e/page_route.py", "/page/", "/page/x"):
        assert client.get(path).status_code == 404
