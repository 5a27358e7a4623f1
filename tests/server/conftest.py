"""Fixtures of the chat page: one browser, one tab, and a server that says what a test wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.chat_page import ChatPage
    from tests.support.scripted_server import ScriptedServer


@pytest.fixture(scope="session")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Page]:
    """A tab of a headless Chromium. There is only one: to open another takes a second."""
    program = chromium.executable()
    if program is None:
        pytest.skip("there is no Chromium here")
    with chromium.chromium(program, tmp_path_factory.mktemp("chromium")) as browser:
        if not browser.answers():
            pytest.skip(f"{program} does not start here")
        page = chromium.Page(browser)
        page.resize(900, 600)
        yield page


@pytest.fixture(scope="session")
def _scripted() -> Iterator[ScriptedServer]:
    from tests.support.scripted_server import scripted_server

    with scripted_server() as server:
        yield server


@pytest.fixture
def scripted(_scripted: ScriptedServer) -> ScriptedServer:
    """The server that says what a test wants; a new script for each test."""
    _scripted.reset()
    return _scripted


@pytest.fixture
def page(tab: chromium.Page, scripted: ScriptedServer) -> Iterator[ChatPage]:
    """A new chat with that server, in the one tab. Nothing in it breaks the policy."""
    from tests.support.chat_page import ChatPage

    tab.forget()
    shown = ChatPage(tab, scripted.url)
    shown.new_chat()
    yield shown
    scripted.go_on.set()
    assert shown.complaints() == []
    assert shown.requests_elsewhere() == []
