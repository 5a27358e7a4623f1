"""What else can be done on the chat page, and what it says when something is the matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.chat_page import ChatPage
    from tests.support.scripted_server import ScriptedServer


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
    page.browser.press("ArrowUp")  # in the empty field: edit the last question
    page.browser.type(", edited")
    page.press("Ask this")
    page.wait()
    assert page.turns() == ["First, edited", "Another."]
    assert scripted.asked[-1]["messages"] == [{"role": "user", "content": "First, edited"}]
    page.press("The one before")
    assert page.turns() == ["First", "Another."]  # the newest of the two that it had


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
    page.browser.run("document.getElementById('sampling-top_k').value = '40'")
    page.press("Save", "dialog[open]")
    page.ask("Hello")
    asked = scripted.asked[-1]
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
