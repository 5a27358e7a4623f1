"""The chat page in browsers that differ: blocked storage, several tabs, keyboards, odd keys.

Only with EDGESPPO_LONG=1, and where there is a Chromium: no package of the tests brings one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.chat_page import ChatPage
    from tests.support.scripted_server import ScriptedServer

pytestmark = pytest.mark.skipif(not LONG, reason="it takes a browser; EDGESPPO_LONG=1 runs it")

BLOCKS_STORAGE = """for (const name of ["localStorage", "sessionStorage"])
  Object.defineProperty(window, name, { get() { throw new DOMException("no", "SecurityError"); } });
"""
KEY_IS_ASKED = "document.getElementById('key').open"
# What another tab does to the chat of a title.
DELETES = """(() => {
  const has = (name) => name.includes(".chat.") && localStorage[name].includes(%s);
  const name = Object.keys(localStorage).find(has);
  const text = localStorage[name];
  const wrote = (newValue) => dispatchEvent(new StorageEvent("storage", { key: name, newValue }));
  localStorage.removeItem(name);
  wrote(null);
  window.undo = () => { localStorage[name] = text; wrote(text); };
})()"""


@pytest.fixture(autouse=True)
def _keyless(page: ChatPage) -> Iterator[None]:
    """Leave no API key behind."""
    yield
    page.browser.run("(() => { try { sessionStorage.clear() } catch {} })()")


@pytest.fixture
def blocked(page: ChatPage) -> Iterator[ChatPage]:
    """A page whose browser denies it all storage."""
    add = "Page.addScriptToEvaluateOnNewDocument"
    added = page.browser.call(add, source=BLOCKS_STORAGE)["identifier"]
    page.reload()
    yield page
    page.browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=added)
    page.browser.open("about:blank")


def test_without_storage_everything_works_and_what_is_lost_is_told(
    blocked: ChatPage, scripted: ScriptedServer
) -> None:
    assert blocked.ask("Hello") == "Hello, you."
    blocked.until_notice("This browser keeps nothing")
    scripted.key = "secret-of-ada"
    blocked.send("And with a key?")
    blocked.browser.until(KEY_IS_ASKED)
    blocked.browser.type("secret-of-ada")
    blocked.browser.press("Enter")
    blocked.wait()
    assert blocked.answer() == "Hello, you."
    blocked.browser.run("document.getElementById('delete-chat').click()")
    assert "Hello" not in blocked.chats()


def test_a_key_that_was_copied_with_an_invisible_character_is_accepted(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.key = "secret-of-bob"
    page.send("May I?")
    page.browser.until(KEY_IS_ASKED)
    page.browser.type("\u200bsecret-of-bob\u00a0")
    page.browser.press("Enter")
    page.until_answer_has("Hello, you.")


@pytest.mark.parametrize(
    ("status", "told"), [(429, "too many wrong keys"), (403, "not allowed"), (503, "no room")]
)
def test_a_refusal_does_not_look_like_a_right_key(
    page: ChatPage, scripted: ScriptedServer, status: int, told: str
) -> None:
    scripted.key = f"secret {status}"
    page.reload(keyless=True)
    page.browser.until(KEY_IS_ASKED)
    scripted.hides_model = (status, "code", told)
    page.browser.type("wrong")
    page.browser.press("Enter")
    hint = "document.getElementById('key-hint').innerText"
    page.browser.until(f"{KEY_IS_ASKED} && {hint}.includes({json.dumps(told)})")
    page.until_notice(told)
    scripted.hides_model = None
    page.browser.type(scripted.key)
    page.browser.press("Enter")
    page.browser.until("document.getElementById('notices').innerText === ''")


def test_a_chat_that_another_tab_deleted_stays_deleted_unless_it_is_wanted(page: ChatPage) -> None:
    page.ask("Gone elsewhere")
    page.browser.run(DELETES % '"Gone elsewhere"')
    page.until_notice("was deleted in another tab")
    assert page.turns() == ["Gone elsewhere", "Hello, you."]
    page.browser.run("dispatchEvent(new Event('pagehide'))")  # which saves what is shown
    stored = "Object.values(localStorage).some((text) => text.includes('Gone elsewhere'))"
    assert not page.browser.run(stored)
    assert "Gone elsewhere" not in page.chats()
    page.ask("Go on")
    assert page.browser.run(stored)
    assert page.chats().count("Gone elsewhere") == 1
    assert page.notices() == ""


def test_a_chat_that_another_tab_deletes_and_puts_back_is_there_once(page: ChatPage) -> None:
    page.ask("There and back")
    page.browser.run(DELETES % '"There and back"')
    page.until_notice("was deleted in another tab")
    page.browser.run("undo()")
    assert page.notices() == ""
    assert page.chats().count("There and back") == 1


@pytest.fixture
def draft(page: ChatPage) -> Iterator[ChatPage]:
    """A page with a message that is not sent."""
    page.write("Half a thought")
    yield page
    field = "document.getElementById('message')"
    page.browser.run(f"{field}.value = '', {field}.dispatchEvent(new Event('input')), null")


def test_a_draft_is_kept_when_the_page_goes_into_the_background(draft: ChatPage) -> None:
    draft.browser.run(
        "Object.defineProperty(document, 'hidden', { value: true, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange')); delete document.hidden"
    )
    assert draft.browser.run(
        "Object.values(localStorage).some((text) => text.includes('Half a thought'))"
    )


def test_on_a_mac_alt_writes_letters_in_a_text_and_is_a_shortcut_elsewhere(draft: ChatPage) -> None:
    prevented = """(key) => {
      const event = new KeyboardEvent("keydown",
        { key, code: "KeyN", altKey: true, bubbles: true, cancelable: true });
      document.activeElement.dispatchEvent(event);
      return event.defaultPrevented;
    }"""
    mac = "Object.defineProperty(navigator, 'platform', { value: 'MacIntel', configurable: true })"
    draft.browser.run(mac)
    try:
        assert draft.browser.run(f"['ń', 'Dead', '˜'].map({prevented})") == [False] * 3
        assert draft.browser.run(f"['n'].map({prevented})") == [True]
        draft.browser.run("document.activeElement.blur()")
        assert draft.browser.run(f"['ń'].map({prevented})") == [True]
    finally:
        draft.browser.run("delete navigator.platform")
