"""The chat page's files: small, whole, and without what could run or fetch anything else."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING

import pytest
from starlette.testclient import TestClient

from edgesppo.server.app import create_app
from edgesppo.server.page_route import FOLDER, HEADERS, PageFiles
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
    for too_new in ("AbortSignal.any(", "URL.canParse(", ".toSorted(", "Promise.withResolvers("):
        assert too_new not in text, "phones of 2022 have it not"
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


@pytest.fixture(scope="module")
def client() -> TestClient:
    def load() -> LoadedModel:
        raise AssertionError("the page needs no model")

    return TestClient(create_app(load, ServerSettings()), base_url="http://localhost")


def addresses(index: str) -> list[str]:
    return re.findall(r'(?:src|href)="(page/[^"]+)"', index)


def test_the_server_gives_the_page_with_its_policy_and_nothing_beside_it(
    client: TestClient,
) -> None:
    index = client.get("/")
    assert index.headers["Content-Type"] == "text/html; charset=utf-8"
    there = {address.rpartition("/")[2]: address for address in addresses(index.text)}
    assert {"index.html", *there} == {file.name for file in FILES}
    version = there["main.js"].split("/")[1]
    for name, address in there.items():
        answer = client.get(f"/{address}")
        assert (answer.status_code, answer.content) == (200, (FOLDER / name).read_bytes())
        assert answer.headers.items() >= {k.lower(): v for k, v in HEADERS.items()}.items()
        assert "immutable" in answer.headers["Cache-Control"]
    assert index.headers.items() >= {k.lower(): v for k, v in HEADERS.items()}.items()
    for path in ("../../page_route.py", "%2e%2e/%2e%2e/page_route.py", "", "x", "index.html"):
        assert client.get(f"/page/{version}/{path}").status_code == 404
    assert client.get("/page/main.js").status_code == 404
    assert client.get("/page/0123456789abcdef/main.js").status_code == 404


def test_all_modules_are_fetched_at_once(client: TestClient) -> None:
    preloaded = re.findall(r'"modulepreload" href="page/\w+/([\w.]+)"', client.get("/").text)
    assert {*preloaded} == {file.name for file in FILES if file.suffix == ".js"} - {"theme.js"}


def test_a_browser_that_has_the_page_asks_only_whether_it_is_still_the_same(
    client: TestClient,
) -> None:
    first = client.get("/")
    assert first.headers["Cache-Control"] == "no-cache"
    again = client.get("/", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/", headers={"If-None-Match": '"other"'}).content == first.content


def test_a_changed_file_has_another_address(tmp_path: Path) -> None:
    for file in FILES:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    same = PageFiles(tmp_path)
    assert same.version == PageFiles().version
    (tmp_path / "main.js").write_text("// another")
    other = PageFiles(tmp_path)
    assert other.version != same.version
    assert not {*addresses(other.index.decode())} & {*addresses(same.index.decode())}


def test_a_visit_of_the_page_is_one_line_of_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edgesppo.access")
    for address in addresses(client.get("/").text):
        client.get(f"/{address}")
    client.get("/page/x/main.js")
    logged = [
        json.loads(record.message) for record in caplog.records if record.name == "edgesppo.access"
    ]
    assert [(line["path"], line["status"]) for line in logged] == [
        ("/", 200),
        ("/page/{version}/{name}", 404),
    ]
