"""The chat page in a real browser: it answers, keeps what came, and runs nothing of an answer.

Only with EDGESPPO_LONG=1, and where there is a Chromium: no package of the tests brings one.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.chat_page import ChatPage
from tests.support.live_server import live
from tests.support.markdown_cases import HOSTILE
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.chromium import Page
    from tests.support.scripted_server import ScriptedServer

pytestmark = pytest.mark.skipif(not LONG, reason="it takes a browser; EDGESPPO_LONG=1 runs it")


def test_a_whole_conversation_with_a_model(tab: Page, demo_gguf: Path) -> None:
    """The real server: asked twice, reloaded, and asked again."""
    with live(demo_gguf) as server:
        url = f"{server.url}/"
        page = ChatPage(tab, url)
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
        anew = "performance.getEntriesByType('resource').filter((file) => file.transferSize > 0)"
        names = f"{anew}.map((file) => new URL(file.name).pathname)"
        assert {*page.browser.run(names)} <= {"/health", "/v1/models", "/tokenize"}
        assert page.ask("Thank you!")
        assert (page.complaints(), page.requests_elsewhere()) == ([], [])


def test_an_answer_is_shown_with_its_figures_and_told_to_screen_readers(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.answer = ["**Five", "** is", " right.\n\n", "- a\n- b"]
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


def test_a_stopped_answer_stays_and_is_continued(page: ChatPage, scripted: ScriptedServer) -> None:
    scripted.answer, scripted.hold_after = ["One, ", "two, ", "three."], 2
    page.send("Count!")
    page.until_answer_has("two")
    page.browser.press("Escape")
    page.wait()
    assert (page.answer().strip(), page.note()) == ("One, two,", "You stopped this answer.")
    assert scripted.hung_up.wait(10)  # so that it can stop, too
    scripted.answer, scripted.hold_after = ["three."], None
    page.press("Continue")
    page.until_answer_has("three.")
    page.wait()
    assert (page.answer(), page.note()) == ("One, two, three.", "")
    assert scripted.asked[-1]["messages"][-1] == {"role": "assistant", "content": "One, two, "}


def test_a_dropped_connection_loses_nothing(page: ChatPage, scripted: ScriptedServer) -> None:
    scripted.answer, scripted.drop_after = ["Half of ", "an answer"], 1
    page.send("Say something")
    page.wait()
    assert page.answer().strip() == "Half of"
    assert "the connection was lost" in page.note()
    scripted.answer, scripted.drop_after = ["an answer"], None
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


def test_nothing_of_a_hostile_answer_runs_or_is_fetched(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    page.browser.run("window.hacked = () => { window.harm = true }")
    scripted.answer = [HOSTILE[n : n + 7] for n in range(0, len(HOSTILE), 7)]
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


def test_a_narrow_screen_has_all_of_the_page(page: ChatPage, scripted: ScriptedServer) -> None:
    table = f"|{'cell|' * 30}\n|{'-|' * 30}\n|{'wide|' * 30}\n"
    wide = f"{'unbroken' * 40}\n\n```\n{'code ' * 60}\n```\n\n{table}"
    scripted.answer = [wide]
    try:
        page.browser.resize(320, 568, phone=True)
        page.write("Be wide")
        page.browser.press("Enter")  # a phone's keyboard has no other way to a new line
        page.press("Send")
        page.wait()
        assert page.turns()[0] == "Be wide"
        assert page.browser.run("document.documentElement.scrollWidth") == 320
        assert page.browser.run("document.getElementById('scroller').scrollWidth") <= 320
        buttons = "[...document.querySelectorAll('main button')].filter((b) => b.checkVisibility())"
        outside = f"{buttons}.filter((b) => b.getBoundingClientRect().right > 320).length"
        assert page.browser.run(outside) == 0
        page.press("Show the chats")
        assert page.browser.run("document.getElementById('main').inert") is True
        page.browser.press("Escape")
        assert page.browser.run("document.body.dataset.sidebar") == "closed"
        assert page.browser.run("document.activeElement.id") == "open-sidebar"
    finally:
        page.browser.resize(900, 600)


CONTRASTS = """(() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour.startsWith("rgba(0, 0, 0, 0") ? behind(element.parentElement) : colour;
  };
  const texts = "#title, #hint, .text, .prose p, .prose a, .code span, .actions button, .note span";
  return [...document.querySelectorAll(texts)].map((element) => {
    const [one, other] = [getComputedStyle(element).color, behind(element)].map(light);
    return Math.max(one, other) / Math.min(one, other);
  });
})()"""


def test_text_can_be_read_in_both_colours_which_follow_the_system_or_the_switch(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.answer = ["[a](http://b.example)\n\n```js\nlet a = 'b'; // 1\nc = 2;\n```"]
    scripted.finish = "length"
    page.ask("Colours")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.browser.run(colour)
    assert min(page.browser.run(CONTRASTS)) >= 4.5
    page.browser.resize(900, 600, dark=True)
    dark = page.browser.run(colour)
    assert dark != light
    assert min(page.browser.run(CONTRASTS)) >= 4.5
    page.browser.run("document.querySelector('#theme [value=light]').click()")
    assert page.browser.run(colour) == light
    page.browser.resize(900, 600)
    page.browser.run("document.querySelector('#theme [value=dark]').click()")
    assert page.browser.run(colour) == dark
    page.browser.run("document.querySelector('#theme [value=auto]').click()")
    assert page.browser.run(colour) == light


def test_a_reload_in_the_midst_of_an_answer_keeps_what_came(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.answer, scripted.hold_after = ["Kept", " and lost"], 1
    page.send("Reload me")
    page.until_answer_has("Kept")
    page.write("a draft")
    page.browser.run("document.querySelector('#theme [value=dark]').click()")
    page.browser.open(scripted.url)
    page.browser.until("document.querySelector('.assistant')")
    assert page.turns() == ["Reload me", "Kept"]
    assert "the page was closed" in page.note()
    assert page.browser.run("document.getElementById('message').value") == "a draft"
    assert page.browser.run("document.documentElement.dataset.theme") == "dark"
    page.browser.run("document.querySelector('#theme [value=auto]').click()")
    page.browser.run("document.getElementById('message').value = ''")


def test_of_two_copies_of_an_answer_the_newer_one_is_kept(page: ChatPage) -> None:
    """As two tabs have them, in one of which the answer came, was stopped, or goes on."""
    kept = page.with_module(
        "chats.js",
        "const chat = m.newChat();"
        " const node = m.addNode(chat, null, 'assistant', 'One');"
        " const copy = (changes) => ({ ...chat, nodes: [{ ...node, ...changes }] });"
        " const kept = (changes) => (m.mergeChat(chat, copy(changes)), node.content);"
        " return [kept({ content: 'On' }), kept({ content: 'One two' }),"
        "   kept({ content: 'O', version: 1 }), kept({ content: 'One two', version: 0 })]",
    )
    assert kept == ["One", "One two", "O", "O"]


def test_a_link_that_pretends_to_be_another_is_told(page: ChatPage) -> None:
    text = "[bank.com](https://evil.example/x) [llama.cpp](https://a.example) [b.com/c](http://b.com/c)"
    answer = page.with_module(
        "render.js",
        "const element = document.createElement('div');"
        f" m.showMarkdown(element, {json.dumps(text)});"
        " return element.textContent",
    )
    assert answer == "bank.com (evil.example) llama.cpp b.com/c"
