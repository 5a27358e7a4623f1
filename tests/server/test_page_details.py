"""What else the chat page can do, and what it says when something is the matter.

Only with EDGESPPO_LONG=1, and where there is a Chromium: no package of the tests brings one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.markdown_cases import GROWING, HOSTILE, MARKDOWN
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.chat_page import ChatPage
    from tests.support.scripted_server import ScriptedServer

pytestmark = pytest.mark.skipif(not LONG, reason="it takes a browser; EDGESPPO_LONG=1 runs it")


def test_new_answers_and_edits_stand_beside_the_old_ones(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    page.ask("First")
    scripted.answer = ["Another."]
    page.press("Regenerate")
    page.until_answer_has("Another.")
    page.wait()
    page.press("The one before")
    assert page.turns() == ["First", "Hello, you."]
    page.write("")
    page.browser.press("ArrowUp")  # in the empty field: edit the last question
    page.browser.type(", edited")
    page.press("Ask this")
    page.wait()
    assert page.turns() == ["First, edited", "Another."]
    assert scripted.asked[-1]["messages"] == [{"role": "user", "content": "First, edited"}]
    page.press("The one before")
    assert page.turns() == ["First", "Another."]  # the newest of the two that it had


def test_turns_that_go_out_of_sight_are_told(page: ChatPage) -> None:
    page.ask("First")
    page.press("Regenerate")
    page.wait()
    assert not page.browser.run("document.getElementById('notices').innerText")
    page.ask("Second")
    page.browser.run("document.querySelectorAll('article.assistant button')[1].click()")
    page.until_notice("What followed stays with the text before")
    page.wait()
    assert page.turns() == ["First", "Hello, you."]


def test_a_loading_server_is_waited_for_and_a_draining_one_told(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.status = "loading"
    page.send("Ready?")
    page.browser.until("document.querySelector('.waiting')")
    page.until_notice("still loading")
    scripted.status = "ok"
    page.until_answer_has("Hello, you.")
    page.wait()
    scripted.status = "draining"
    page.send("And now?")
    page.until_notice("shutting down")
    assert "takes no questions now" in page.note()
    scripted.status = "ok"
    page.press("Try now")
    page.press("Ask again")
    page.until_answer_has("Hello, you.")


def test_a_server_with_keys_is_given_one(page: ChatPage, scripted: ScriptedServer) -> None:
    scripted.key = "secret"
    page.send("May I?")
    page.browser.until("document.getElementById('key').open")
    page.browser.type("wrong")
    page.browser.press("Enter")
    page.browser.until("document.getElementById('key-hint').innerText.includes('does not know')")
    page.browser.type("secret")
    page.browser.press("Enter")
    page.until_answer_has("Hello, you.")
    assert "secret" not in page.browser.run("JSON.stringify({...localStorage})")


# Cancel, and wait until the page knows.
GIVES_NO_KEY = """new Promise((done) => {
  const dialog = document.getElementById("key");
  dialog.addEventListener("close", () => done(), { once: true });
  dialog.querySelector("button").click();
})"""


def test_a_key_is_asked_for_at_once_and_without_one_a_message_stays_where_it_was_written(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    is_asked = "document.getElementById('key').open"
    scripted.key = "another secret"
    page.reload(keyless=True)
    page.browser.until(is_asked)
    page.browser.run(GIVES_NO_KEY)
    page.until_notice("The server wants an API key.")
    page.send("May I?")
    page.browser.until(is_asked)
    page.browser.run(GIVES_NO_KEY)
    assert page.browser.run("document.getElementById('message').value") == "May I?"
    assert page.turns() == []
    page.press("Give a key")
    page.browser.until(is_asked)
    page.browser.type("another secret")
    page.browser.press("Enter")
    page.browser.until("document.activeElement.id === 'message'")
    assert page.ask("") == "Hello, you."
    assert page.notices() == ""


def test_a_server_that_comes_back_with_other_keys_takes_the_new_one(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.status = "draining"
    page.look()
    page.until_notice("shutting down")
    scripted.status, scripted.key = "ok", "a third secret"
    page.look()
    page.browser.until("document.getElementById('key').open")
    page.browser.type("a third secret")
    page.browser.press("Enter")
    page.browser.until("document.activeElement.id === 'message'")
    assert page.ask("May I?") == "Hello, you."
    assert page.notices() == ""


def test_what_the_storage_cannot_keep_is_told_and_stays_on_the_page(page: ChatPage) -> None:
    fill = "for (let n = 0; n < 9999; n += 1) localStorage.setItem(`f${n}`, 'x'.repeat(999))"
    page.browser.run(f"{{ try {{ {fill} }} catch {{}} }}")
    try:
        assert page.ask("Keep this " + "x" * 2000) == "Hello, you."
        page.until_notice("is not saved")
    finally:
        page.browser.run("for (let n = 0; n < 9999; n += 1) localStorage.removeItem(`f${n}`)")
    page.ask("And this")
    assert page.notices() == ""


def test_a_deleted_chat_can_be_had_back(page: ChatPage) -> None:
    page.ask("Precious")
    page.browser.run("document.getElementById('delete-chat').click()")
    assert "Precious" not in page.chats()
    page.press("Undo")
    assert page.turns() == ["Precious", "Hello, you."]
    assert "Precious" in page.chats()


# Of these elements, those that nothing covers.
IN_SIGHT = """["settings-fault", "sampling-top_k"].filter((id) => {
  const { left, top, height } = document.getElementById(id).getBoundingClientRect();
  return document.elementFromPoint(left + 9, top + height / 2)?.id === id;
})"""


def test_settings_go_to_the_server_and_wrong_ones_are_named(
    page: ChatPage, scripted: ScriptedServer
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
    assert page.browser.run(IN_SIGHT) == ["settings-fault", "sampling-top_k"]
    page.browser.run("document.getElementById('sampling-top_k').value = '40'")
    page.press("Save", "dialog[open]")
    page.ask("Hello")
    asked = scripted.asked[-1]
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (asked["temperature"], asked["stop"], asked["top_k"]) == (0.5, ["END"], 40)
    assert "top_p" not in asked


def test_empty_settings_show_what_the_server_takes(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.sampling = {"temperature": 0.7, "top_k": 40, "seed": None}
    page.reload()
    page.press("Settings of this chat")
    fields = "['temperature', 'top_k', 'seed'].map((name) => `sampling-${name}`)"
    shown = f"{fields}.map((id) => document.getElementById(id).placeholder)"
    assert page.browser.run(shown) == ["0.7 (server)", "40 (server)", ""]
    page.press("Cancel", "dialog[open]")


def test_a_complete_answer_is_not_gone_on_with(page: ChatPage, scripted: ScriptedServer) -> None:
    page.ask("Hello")
    buttons = "[...document.querySelectorAll('.assistant button')].map((b) => b.innerText)"
    assert page.browser.run(buttons) == ["Copy", "Regenerate", "Edit"]
    page.browser.press("c", "KeyC", modifiers=1)
    page.until_notice("this answer is complete")
    page.press("Close")
    assert len(scripted.asked) == 1


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


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (400, "context_length_exceeded", "does not fit"),
        (429, "queue_full", "The server is busy"),
        (500, "engine_error", "it says why"),
    ],
)
def test_a_refusal_is_explained_and_the_question_stays(
    page: ChatPage, scripted: ScriptedServer, status: int, code: str, told: str
) -> None:
    scripted.refusal = (status, code, "it says why")
    page.ask("Too much?")
    assert told in page.note()
    assert "it says why" in page.note()
    scripted.refusal = None
    page.press("Ask again")
    page.until_answer_has("Hello, you.")
    assert page.turns() == ["Too much?", "Hello, you."]


def test_answers_come_in_two_chats_at_once_and_not_in_one_that_was_deleted(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.hold_after = 1
    page.send("Slow")
    page.until_answer_has("Hello")
    page.new_chat()
    page.send("Deleted")
    page.until_answer_has("Hello")
    page.browser.run("document.getElementById('delete-chat').click()")
    scripted.hold_after = None
    assert page.ask("Quick") == "Hello, you."
    scripted.go_on.set()
    page.browser.until("!document.querySelector('#chats .busy')")
    assert [title for title in page.chats() if title in ("Slow", "Quick", "Deleted")] == [
        "Slow",  # which was written to last
        "Quick",
    ]
    page.press("Slow", "#chats")
    assert page.turns() == ["Slow", "Hello, you."]


def test_markdown_is_shown_as_commonmark_and_github_have_it(page: ChatPage) -> None:
    for cases, partial in ((MARKDOWN, "false"), (GROWING, "true")):
        shown = page.with_module(
            "render.js",
            f"return {json.dumps([*cases])}.map((text) => {{"
            " const element = document.createElement('div');"
            f" m.showMarkdown(element, text, {{ partial: {partial} }});"
            " return element.innerHTML; })",
        )
        for (text, expected), html in zip(cases.items(), shown, strict=True):
            assert expected in html, text


def test_a_growing_answer_keeps_the_elements_that_are_whole(page: ChatPage) -> None:
    assert page.with_module(
        "render.js",
        "const element = document.createElement('div');"
        " m.showMarkdown(element, 'one\\n\\ntwo', { partial: true });"
        " const [one, two] = element.children;"
        " m.showMarkdown(element, 'one\\n\\ntwo and three', { partial: true });"
        " return element.children[0] === one && element.children[1] !== two",
    )


def test_an_answer_that_grew_looks_like_one_that_came_at_once(page: ChatPage) -> None:
    text = "".join(f"{case}\n\n" for case in (*MARKDOWN, "a\n# b", "a\n#b", "- a\n\n- b", HOSTILE))
    grown, at_once = page.with_module(
        "render.js",
        f"const text = {json.dumps(text)};"
        " const [one, other] = [1, 2].map(() => document.createElement('div'));"
        " for (let n = 0; n <= text.length; n += 1)"
        "   m.showMarkdown(one, text.slice(0, n), { partial: n < text.length });"
        " m.showMarkdown(other, text);"
        " return [one.innerHTML, other.innerHTML]",
    )
    assert grown == at_once


def test_no_text_takes_long_to_show(page: ChatPage) -> None:
    """Each of these would, if its parts were looked for again and again, or nested without end."""
    parts = ["*a ", "a**b", "_a ", "[", "[a](", "![", "`a", "`` ` ", "~~a", "> ", "- ", "  ", "\\"]
    lines = ["> a\n", "- a\n  - b\n", "|a|\n|-|\n", "```\n", "a\n---\n", "1. a\n\n"]
    nested = "".join(f"{'  ' * depth}- a\n" for depth in range(200))
    hostile = [part * (50_000 // len(part)) for part in parts + lines] + [nested, ">" * 50_000]
    shown = page.with_module(
        "render.js",
        f"return {json.dumps(hostile)}.map((text) => {{"
        " const element = document.createElement('div');"
        " m.showMarkdown(element, text);"
        " return element.textContent.length; })",
    )
    assert len(shown) == len(hostile)


def test_an_exported_chat_is_the_same_when_imported(
    page: ChatPage, scripted: ScriptedServer
) -> None:
    scripted.answer = ["**Kept** <b>"]
    page.ask("Export me")
    stored, read, markdown = page.with_module(
        "export.js",
        "const chats = Object.entries(localStorage).filter(([name]) => name.includes('.chat.'));"
        " const stored = JSON.parse(chats.find(([, text]) => text.includes('Export me'))[1]);"
        " const [read] = m.fromJson(m.asJson([stored]));"
        " return [stored, read, m.asMarkdown(read)]",
    )
    assert read == stored
    assert markdown == "# Export me\n\n## You\n\nExport me\n\n## scripted\n\n**Kept** <b>\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("{}", "not a file that this page exported"),
        ('{"format": "edgesppo chats", "chats": [{}]}', "not a chat"),
        ('{"format": "edgesppo chats", "chats": [{"nodes": [{"id": 1}]}]}', "cannot be read"),
    ],
)
def test_a_file_that_is_no_export_is_refused_in_words(
    page: ChatPage, text: str, message: str
) -> None:
    reading = f"try {{ return m.fromJson({json.dumps(text)}) }}"
    said = page.with_module("export.js", f"{reading} catch (error) {{ return error.message }}")
    assert message in said


def test_two_tabs_lose_nothing_of_each_other(page: ChatPage, scripted: ScriptedServer) -> None:
    """Another tab, here a hand, adds a question to a chat that this one goes on with."""
    page.ask("Mine")
    page.browser.run(
        "(() => { const name = Object.keys(localStorage).find((name) =>"
        '   localStorage[name].includes(\'"title":"Mine"\'));'
        " const chat = JSON.parse(localStorage[name]);"
        " chat.nodes.push({ ...chat.nodes[0], id: 'theirs', content: 'Theirs' });"
        " localStorage[name] = JSON.stringify(chat); })()"
    )
    page.ask("Mine again")
    stored = page.browser.run(
        "Object.values(localStorage).find((text) => text.includes('Mine again'))"
    )
    assert '"content":"Theirs"' in stored
    assert len(scripted.asked) == 2


def test_chats_go_into_a_file_and_come_back_from_it(page: ChatPage, tmp_path: Path) -> None:
    page.ask("Into a file")
    page.browser.keep_downloads_in(tmp_path)
    page.browser.run("document.getElementById('export-json').click()")
    file = tmp_path / "into-a-file.json"
    page.browser.wait_until(file.exists)
    page.browser.run("document.getElementById('delete-chat').click()")
    page.browser.choose_file("#import-file", file)
    page.until_notice("1 chat of")
    assert page.turns() == ["Into a file", "Hello, you."]
    page.press("Close")
