"""The chat page at the end of the context: what is left out, what is refused, what is never sent.

Only with EDGESPPO_LONG=1, and where there is a Chromium: no package of the tests brings one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.chat_page import ChatPage
from tests.support.live_server import live
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.chromium import Page
    from tests.support.scripted_server import ScriptedServer

pytestmark = pytest.mark.skipif(not LONG, reason="it takes a browser; EDGESPPO_LONG=1 runs it")

# A turn of 16 tokens: a question of 12, and "Hello, you." of 4.
TEN = "one two three four five six seven eight nine"
HINT = "document.getElementById('hint').innerText"
SEND_IS_OFF = "document.getElementById('send').disabled"


@pytest.fixture
def small(page: ChatPage, scripted: ScriptedServer) -> Iterator[ChatPage]:
    """A chat with a model that reads 60 tokens: 45, and 15 of an answer."""
    scripted.n_ctx = 60
    page.reload()
    yield page
    field = "document.getElementById('message')"
    page.browser.run(f"{field}.value = '', {field}.dispatchEvent(new Event('input')), null")
    scripted.reset()
    page.reload()


def questions(scripted: ScriptedServer) -> list[Any]:
    """The questions of the newest prompt."""
    messages = scripted.asked[-1]["messages"]
    return [message["content"] for message in messages if message["role"] == "user"]


def cut(page: ChatPage) -> str | None:
    """What is said where the newest prompt begins; None if it begins where the chat does."""
    text: str | None = page.browser.run("document.querySelector('.cut')?.innerText ?? null")
    return text


def test_a_chat_that_no_longer_fits_goes_on_without_its_oldest_turns(
    small: ChatPage, scripted: ScriptedServer
) -> None:
    asked = [f"{TEN} {n}" for n in range(5)]
    for question in asked[:3]:
        small.ask(question)
    assert (questions(scripted), cut(small)) == (asked[:3], None)
    small.write(asked[3])
    small.browser.until(f"{HINT} === 'The oldest 3 turns no longer fit and will be left out.'")
    small.browser.until("document.getElementById('gauge-text').innerText === '12 of 60 tokens'")
    small.ask("")
    assert (questions(scripted), small.answer()) == (asked[3:4], "Hello, you.")
    small.ask(asked[4])  # the prompt begins where the last one did, so that its cache is used
    assert questions(scripted) == asked[3:]
    small.reload()
    small.browser.until("document.querySelectorAll('.turn').length === 10")
    assert cut(small) == "The 3 turns above no longer fit and are left out."
    assert small.turns()[::2] == asked
    scripted.n_ctx = 8192
    small.reload()
    small.ask("And now?")
    assert (questions(scripted), cut(small)) == ([*asked, "And now?"], None)


def test_a_system_text_stays_when_turns_are_left_out(
    small: ChatPage, scripted: ScriptedServer
) -> None:
    small.set(system="Be brief.")
    for n in range(3):
        small.ask(f"{TEN} {n}")
    assert [message["content"] for message in scripted.asked[-1]["messages"]] == [
        "Be brief.",
        f"{TEN} 2",
    ]
    small.write("word " * 60)
    small.browser.until(
        f"{HINT} === 'This message with the system text is too long: 64 tokens, 59 fit.'"
    )


def test_a_message_that_can_never_fit_is_told_before_it_is_sent_and_stays_where_it_was_written(
    small: ChatPage, scripted: ScriptedServer
) -> None:
    small.write("word " * 80)
    small.browser.press("Enter")  # sooner than it was counted
    small.browser.until(f"{HINT} === 'This message is too long: 82 tokens, 59 fit.'")
    small.browser.until("document.getElementById('gauge-text').innerText === '82 of 60 tokens'")
    assert small.browser.run(SEND_IS_OFF) is True
    assert small.browser.run("document.getElementById('message').ariaInvalid") == "true"
    small.browser.press("Enter")
    small.write("word")
    assert small.browser.run(SEND_IS_OFF) is False  # until it was counted again
    small.browser.until(f"{HINT}.includes('83 tokens')")
    assert (small.turns(), scripted.asked) == ([], [])
    small.browser.run("document.getElementById('message').select()")
    assert small.ask("Hi") == "Hello, you."
    assert questions(scripted) == ["Hi"]


def test_another_model_counts_anew(small: ChatPage, scripted: ScriptedServer) -> None:
    small.write("word " * 80)
    small.browser.until(f"{HINT} === 'This message is too long: 82 tokens, 59 fit.'")
    scripted.status = "draining"
    small.look()
    small.until_notice("shutting down")
    scripted.status, scripted.n_ctx = "ok", 200
    small.look()
    small.browser.until("document.getElementById('gauge-text').innerText === '82 of 200 tokens'")
    assert small.browser.run(SEND_IS_OFF) is False


def test_a_server_that_does_not_count_is_asked_all_the_same(
    small: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.hold_counts = True
    small.send("word " * 20)
    deadline = time.monotonic() + 30
    while not scripted.asked:
        assert time.monotonic() < deadline, "it was not asked"
        time.sleep(0.05)
    scripted.hold_counts = False
    scripted.go_on.set()
    small.wait()
    assert (small.turns()[1], questions(scripted)) == ("Hello, you.", [("word " * 20).strip()])


def test_a_message_that_could_not_be_sent_can_be_sent_again(page: ChatPage) -> None:
    is_sending = page.with_module(
        "composer.js",
        "const composer = Object.create(m.Composer.prototype);"
        " const send = () => Promise.reject(new Error('it failed'));"
        " Object.assign(composer, { field: { value: 'Hi' }, send });"
        " return composer.submit(new Event('submit')).catch(() => composer.sending)",
    )
    assert is_sending is False


def test_a_question_that_got_no_answer_is_not_sent_with_the_next_one(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    page.ask("First")
    scripted.refusal = (500, "engine_error", "it failed")
    page.ask("Lost")
    headings = "[...document.querySelectorAll('.assistant h2')].map((h) => h.innerText)"
    assert page.browser.run(headings) == ["Answer of scripted", "No answer"]
    scripted.refusal = None
    page.ask("Second")
    assert questions(scripted) == ["First", "Second"]
    assert page.turns() == ["First", "Hello, you.", "Lost", "", "Second", "Hello, you."]


def test_what_cannot_be_asked_anew_or_gone_on_with_says_so(
    small: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.answer, scripted.finish = ["word " * 58], "length"
    small.ask("Hi")
    small.press("Continue")
    small.wait()
    assert small.note().startswith("There is no room to go on")
    small.browser.press("ArrowUp")
    small.browser.type("word " * 80)
    small.press("Ask this")
    small.browser.until("document.querySelector('.note span')?.innerText.includes('82 tokens, 59')")
    assert small.browser.run("document.querySelectorAll('.note button').length") == 0
    assert len(scripted.asked) == 1


def test_a_long_chat_with_a_model_does_not_end(tab: Page, demo_gguf: Path) -> None:
    with live(demo_gguf) as server:
        page = ChatPage(tab, f"{server.url}/")
        page.set(sampling__max_tokens="8")
        page.write("word " * 2000)
        page.browser.until(f"/too long: 2,0\\d\\d tokens, 511 fit/.test({HINT})")
        page.browser.run("document.getElementById('message').select()")
        for n in range(4):
            assert page.ask(f"{n} " + "What is the capital of France? " * 20)
        assert cut(page) is not None
        assert (page.complaints(), page.requests_elsewhere()) == ([], [])
