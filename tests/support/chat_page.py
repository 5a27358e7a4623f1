"""The chat page as a person uses it: asks, reads, presses buttons."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.chromium import Page

_LAST = "[...document.querySelectorAll('.assistant')].at(-1)"


class ChatPage:
    """What can be seen and done on the page that a browser shows."""

    def __init__(self, page: Page, url: str) -> None:
        """Open it, unless it is what the browser shows."""
        self.browser = page
        self.url = url
        if not page.run("location.href").startswith(url):
            page.open("about:blank")  # so that nothing of another page comes any more
            page.forget()
            page.open(url)
        self._until_it_knows_the_server()

    def _until_it_knows_the_server(self) -> None:
        self.browser.until("document.getElementById('about').innerText.startsWith('You talk to')")

    def reload(self, *, keyless: bool = False) -> None:
        """Open it anew; `keyless`: the server tells nothing of itself yet."""
        self.browser.open("about:blank")
        self.browser.open(self.url)
        if not keyless:
            self._until_it_knows_the_server()

    def look(self) -> None:
        """Let it ask how the server is, as when a person comes back to the tab."""
        self.browser.run("document.dispatchEvent(new Event('visibilitychange'))")

    def write(self, text: str) -> None:
        """Write into the field for messages."""
        self.browser.run("document.getElementById('message').focus()")
        self.browser.type(text)

    def send(self, text: str) -> None:
        """Write a message and send it."""
        self.write(text)
        self.browser.press("Enter")

    def ask(self, text: str) -> str:
        """Send a message and wait for all of the answer; returns it as it is read."""
        self.send(text)
        self.browser.until("document.getElementById('message').value === ''")
        self.wait()
        return self.answer()

    def wait(self) -> None:
        """Until no answer comes any more."""
        self.browser.until(
            f"!document.querySelector('.running') && {_LAST}?.querySelector('button')"
        )

    def answer(self) -> str:
        """The newest answer, as it is read."""
        text: str = self.browser.run(f"{_LAST}.querySelector('.prose').innerText")
        return text

    def html(self) -> str:
        """The newest answer, as the browser would write it."""
        text: str = self.browser.run(f"{_LAST}.querySelector('.prose').innerHTML")
        return text

    def until_answer_has(self, text: str) -> None:
        """Until the newest answer has come so far."""
        self.browser.until(
            f"{_LAST}?.querySelector('.prose').innerText.includes({json.dumps(text)})"
        )

    def note(self) -> str:
        """What is said below the newest answer about why it is not whole; empty if it is."""
        text: str = self.browser.run(
            f"{_LAST}.querySelector('.note:not([hidden]) span')?.innerText ?? ''"
        )
        return text

    def notices(self) -> str:
        """What is said above the chat."""
        text: str = self.browser.run("document.getElementById('notices').innerText")
        return text

    def until_notice(self, text: str) -> None:
        """Until this is said above the chat."""
        self.browser.until(
            f"document.getElementById('notices').innerText.includes({json.dumps(text)})"
        )

    def press(self, label: str, within: str = "main") -> None:
        """Press the last button of this name; `within` is a selector."""
        buttons = f"[...document.querySelectorAll({json.dumps(within + ' button')})]"
        named = f"(b.ariaLabel ?? b.innerText.trim()) === {json.dumps(label)}"
        self.browser.run(f"{buttons}.findLast((b) => b.checkVisibility() && {named}).click()")

    def new_chat(self) -> None:
        """Begin a chat."""
        self.browser.press("n", "KeyN", modifiers=1)
        self.browser.until("!document.querySelector('.turn')")

    def turns(self) -> list[str]:
        """All that is said in the chat, without the buttons."""
        turns: list[str] = self.browser.run(
            "[...document.querySelectorAll('.turn')].map((t) => t.children[1].innerText)"
        )
        return turns

    def chats(self) -> list[str]:
        """The titles at the side."""
        titles: list[str] = self.browser.run(
            "[...document.querySelectorAll('#chats .name')].map((n) => n.innerText)"
        )
        return titles

    def set(self, **fields: str) -> None:
        """Open the settings, fill in these fields by their ids, and save."""
        self.press("Settings of this chat")
        for name, value in fields.items():
            field = name.replace("__", "-")
            self.browser.run(f"document.getElementById({field!r}).value = {json.dumps(value)}")
        self.press("Save", "dialog[open]")

    def with_module(self, name: str, statements: str) -> Any:
        """Run statements that `return` something; what a module of the page exports is in `m`."""
        folder = "new URL('.', document.querySelector('script[type=module]').src)"
        return self.browser.run(f"import({folder} + '{name}').then((m) => {{ {statements} }})")

    def complaints(self) -> list[Any]:
        """What the browser found fault with: exceptions, and what the policy forbade."""
        logged = [event["entry"] for event in self.browser.events("Log.entryAdded")]
        logged = [entry for entry in logged if entry["source"] != "network"]
        return [*logged, *self.browser.events("Runtime.exceptionThrown")]

    def requests_elsewhere(self) -> list[str]:
        """The addresses that were asked, other than this server's."""
        sent = self.browser.events("Network.requestWillBeSent")
        addresses = [event["request"]["url"] for event in sent]
        return [url for url in addresses if not url.startswith((self.url, "blob:", "data:"))]
