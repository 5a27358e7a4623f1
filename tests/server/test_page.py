"""The chat page in a real browser: it answers, keeps what came, and runs nothing of an answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support import chromium
from tests.support.chat_page import ChatPage
from tests.support.scripted_server import ScriptedServer, scripted_server
from tests.support.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = chromium.executable()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[chromium.Browser]:
    assert PROGRAM is not None
    with chromium.chromium(PROGRAM, tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def _scripted() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server


@pytest.fixture(scope="module")
def _page(browser: chromium.Browser, _scripted: ScriptedServer) -> ChatPage:
    page = chromium.Page(browser)
    page.resize(1200, 800)
    return ChatPage(page, _scripted.url)


@pytest.fixture
def server(_scripted: ScriptedServer) -> ScriptedServer:
    """The server that says what a test wants; a new script for each test."""
    for name, value in vars(ScriptedServer(url=_scripted.url)).items():
        setattr(_scripted, name, value)
    return _scripted


@pytest.fixture
def page(_page: ChatPage, server: ScriptedServer) -> Iterator[ChatPage]:
    """A new chat with that server, on a page that stays open: opening one takes long."""
    _page.new_chat()
    yield _page
    server.go_on.set()
    assert _page.complaints() == []
    assert _page.requests_elsewhere() == []


def test_an_answer_is_shown_with_its_figures_and_told_to_screen_readers(
    page: ChatPage, server: ScriptedServer
) -> None:
    server.answer = ["**Five", "** is", " right.\n\n", "- a\n- b"]
    assert page.ask("What is 2 plus 3?") == "Five is right.\n\na\nb"
    assert "4 tokens · 12.5 tokens/s" in page.browser.run(
        "document.querySelector('.figures:not(:empty)').innerText"
    )
    told = page.browser.run("document.getElementById('live').innerText")
    assert re.search(
        r"The answer begins\.\s+Five is right\.\s+a\s+b\s+The answer is complete\.\s*$", told
    )
    page.browser.until(
        "document.getElementById('gauge-text').innerText.endsWith('of 8,192 tokens')"
    )
    assert page.chats()[0] == "What is 2 plus 3?"


def test_a_stopped_answer_stays_and_is_continued(page: ChatPage, server: ScriptedServer) -> None:
    server.answer, server.hold_after = ["One, ", "two, ", "three."], 2
    page.send("Count!")
    page.until_answer_has("two")
    page.browser.press("Escape")
    page.wait()
    assert (page.answer().strip(), page.note()) == ("One, two,", "You stopped this answer.")
    assert server.hung_up.wait(10)  # so that it can stop, too
    server.answer, server.hold_after = ["three."], None
    page.press("Continue")
    page.until_answer_has("three.")
    page.wait()
    assert (page.answer(), page.note()) == ("One, two, three.", "")
    assert server.asked[-1]["messages"][-1] == {"role": "assistant", "content": "One, two, "}


def test_a_dropped_connection_loses_nothing(page: ChatPage, server: ScriptedServer) -> None:
    server.answer, server.drop_after = ["Half of ", "an answer"], 1
    page.send("Say something")
    page.wait()
    assert page.answer().strip() == "Half of"
    assert "the connection was lost" in page.note()
    server.answer, server.drop_after = ["an answer"], None
    page.press("Continue")
    page.until_answer_has("Half of an answer")
    page.wait()
    assert page.note() == ""


def test_without_a_network_a_question_waits_to_be_asked_again(page: ChatPage) -> None:
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.call("Network.emulateNetworkConditions", offline=True, **offline)
    page.send("Are you there?")
    page.until_notice("no connection to the server")
    page.browser.call("Network.emulateNetworkConditions", offline=False, **offline)
    assert page.turns() == ["Are you there?", ""]
    page.press("Try now")
    page.browser.until("!document.getElementById('notices').innerText")
    page.press("Ask again")
    page.until_answer_has("Hello, you.")
    assert page.turns() == ["Are you there?", "Hello, you."]


HOSTILE = """# <img src=x onerror="hacked()">

<script>hacked()</script> <iframe src="javascript:hacked()"></iframe>
[a](javascript:hacked()) [b](JaVaScRiPt:hacked()) [c](data:text/html,<script>hacked()</script>)
[d](/v1/models) ![e](http://elsewhere.invalid/pixel.png) <a href="javascript:hacked()">f</a>
[g](https://good.invalid/"onmouseover="hacked())

```<script>hacked()</script>
</code></pre><script>hacked()</script>
```

| <svg onload=hacked()> | b |
|---|---|
| <style>*{display:none}</style> | {{constructor.constructor('hacked()')()}} |
"""


def test_nothing_of_a_hostile_answer_runs_or_is_fetched(
    page: ChatPage, server: ScriptedServer
) -> None:
    page.browser.run("window.hacked = () => { window.harm = true }")
    server.answer = [HOSTILE[n : n + 7] for n in range(0, len(HOSTILE), 7)]
    text = page.ask("<img src=x onerror=hacked()> [x](javascript:hacked())")
    assert page.browser.run("window.harm ?? false") is False
    for shown in (
        "<script>hacked()</script>",
        "[a](javascript:hacked())",
        "<svg onload=hacked()>",
        "[d](/v1/models)",
    ):
        assert shown in text
    kinds = "[...document.querySelectorAll('#conversation *, #chats *')].map((e) => e.localName)"
    assert not {*page.browser.run(kinds)} & {
        "script",
        "img",
        "iframe",
        "svg",
        "style",
        "object",
        "form",
    }
    links = "[...document.querySelectorAll('#conversation a')].map((a) => a.protocol + a.host)"
    assert page.browser.run(links) == ["http:elsewhere.invalid", "https:good.invalid"]
    attributes = (
        "[...document.querySelectorAll('#conversation *')].flatMap((e) => e.getAttributeNames())"
    )
    assert not [
        name for name in page.browser.run(attributes) if name.startswith("on") or name == "style"
    ]


def test_a_narrow_screen_has_all_of_the_page(page: ChatPage, server: ScriptedServer) -> None:
    wide = f"{'unbroken' * 40}\n\n```\n{'code ' * 60}\n```\n\n|{'cell|' * 30}\n|{'-|' * 30}\n|{'wide|' * 30}\n"
    server.answer = [wide]
    try:
        page.browser.resize(320, 568, phone=True)
        page.write("Be wide")
        page.browser.press("Enter")  # a phone's keyboard has no other way to a new line
        page.press("Send")
        page.wait()
        assert page.turns()[0] == "Be wide"
        assert page.browser.run("document.documentElement.scrollWidth") == 320
        assert page.browser.run("document.getElementById('scroller').scrollWidth") <= 320
        outside = "[...document.querySelectorAll('main button')].filter((b) => b.checkVisibility() && b.getBoundingClientRect().right > 320).length"
        assert page.browser.run(outside) == 0
        page.press("Show the chats")
        assert page.browser.run("document.getElementById('main').inert") is True
        page.browser.press("Escape")
        assert page.browser.run("document.body.dataset.sidebar") == "closed"
        assert page.browser.run("document.activeElement.id") == "open-sidebar"
    finally:
        page.browser.resize(1200, 800)


def test_new_answers_and_edits_stand_beside_the_old_ones(
    page: ChatPage, server: ScriptedServer
) -> None:
    page.ask("First")
    server.answer = ["Another."]
    page.press("Regenerate")
    page.until_answer_has("Another.")
    page.wait()
    page.press("The one before")
    assert page.turns() == ["First", "Hello, you."]
    page.browser.press("ArrowUp")  # in the empty field: edit the last question
    page.browser.type(", edited")
    page.press("Ask this")
    page.wait()
    assert page.turns() == ["First, edited", "Another."]
    assert server.asked[-1]["messages"] == [{"role": "user", "content": "First, edited"}]
    page.press("The one before")
    assert page.turns() == ["First", "Another."]  # the newest of the two that it had


def test_a_loading_server_is_waited_for_and_a_draining_one_told(
    page: ChatPage, server: ScriptedServer
) -> None:
    server.status = "loading"
    page.send("Ready?")
    page.browser.until("document.querySelector('.waiting')")
    page.until_notice("still loading")
    server.status = "ok"
    page.until_answer_has("Hello, you.")
    page.wait()
    server.status = "draining"
    page.send("And now?")
    page.until_notice("shutting down")
    assert "takes no questions now" in page.note()
    server.status = "ok"
    page.press("Try now")
    page.press("Ask again")
    page.until_answer_has("Hello, you.")


def test_a_server_with_keys_is_given_one(page: ChatPage, server: ScriptedServer) -> None:
    server.key = "secret"
    page.send("May I?")
    page.browser.until("document.getElementById('key').open")
    page.browser.type("wrong")
    page.browser.press("Enter")
    page.browser.until("document.getElementById('key-hint').innerText.includes('does not know')")
    page.browser.type("secret")
    page.browser.press("Enter")
    page.until_answer_has("Hello, you.")
    assert "secret" not in page.browser.run("JSON.stringify({...localStorage})")


def test_what_the_storage_cannot_keep_is_told_and_stays_on_the_page(page: ChatPage) -> None:
    page.browser.run("localStorage.setItem('filler', 'x'.repeat(5 * 1024 * 1024 - 40_000))")
    page.browser.run(
        "for (let n = 0; n < 99; n += 1) try { localStorage.setItem(`f${n}`, 'x'.repeat(999)) } catch {}"
    )
    try:
        assert page.ask("Keep this " + "x" * 2000) == "Hello, you."
        page.until_notice("is not saved")
    finally:
        page.browser.run(
            "for (const n of Object.keys(localStorage)) if (n[0] === 'f') localStorage.removeItem(n)"
        )
    page.ask("And this")
    assert page.notices() == ""


def test_a_deleted_chat_can_be_had_back(page: ChatPage) -> None:
    page.ask("Precious")
    page.browser.run("document.getElementById('delete-chat').click()")
    assert "Precious" not in page.chats()
    page.press("Undo")
    assert page.turns() == ["Precious", "Hello, you."]
    assert "Precious" in page.chats()


def test_settings_go_to_the_server_and_wrong_ones_are_named(
    page: ChatPage, server: ScriptedServer
) -> None:
    page.set(
        system="Be brief.",
        sampling__temperature="0,5",
        sampling__stop="END",
        sampling__top_k="many",
    )
    assert (
        page.browser.run("document.getElementById('settings-fault').innerText")
        == "Top k: “many” is not a number."
    )
    page.browser.run("document.getElementById('sampling-top_k').value = '40'")
    page.press("Save", "dialog[open]")
    page.ask("Hello")
    asked = server.asked[-1]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["temperature"], asked["stop"], asked["top_k"]) == (0.5, ["END"], 40)
    assert "top_p" not in asked


def test_every_control_has_a_name(page: ChatPage) -> None:
    page.ask("Hello")
    tree = page.browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = [
        n
        for n in tree
        if n.get("role", {}).get("value") in ("button", "textbox", "radio", "meter", "link")
    ]
    assert len(controls) > 10
    assert not [n for n in controls if not n.get("name", {}).get("value")]


def test_a_reload_in_the_midst_of_an_answer_keeps_what_came(
    page: ChatPage, server: ScriptedServer
) -> None:
    server.answer, server.hold_after = ["Kept", " and lost"], 1
    page.send("Reload me")
    page.until_answer_has("Kept")
    page.write("a draft")
    page.browser.open(server.url)
    page.browser.until("document.querySelector('.assistant')")
    assert page.turns() == ["Reload me", "Kept"]
    assert "the page was closed" in page.note()
    assert page.browser.run("document.getElementById('message').value") == "a draft"
    page.browser.run("document.getElementById('message').value = ''")


def test_a_whole_conversation_with_a_model(browser: chromium.Browser, demo_gguf: Path) -> None:
    """The real server: asked twice, reloaded, and asked again."""
    with served(demo_gguf) as url:
        page = ChatPage(chromium.Page(browser), url)
        page.set(sampling__temperature="0")
        assert "5" in page.ask("What is 2 plus 3?")
        assert page.ask("What is the capital of France?")
        page.browser.until(
            "/^\\d+ of 512 tokens$/.test(document.getElementById('gauge-text').innerText)"
        )
        assert re.search(
            r"\d+ tokens · [\d.,]+ tokens/s", page.browser.run("document.body.innerText")
        )
        before = page.turns()
        page.browser.open(url)
        page.browser.until("document.querySelectorAll('.turn').length === 4")
        assert page.turns() == before
        assert page.ask("Thank you!")
        assert (page.complaints(), page.requests_elsewhere()) == ([], [])
