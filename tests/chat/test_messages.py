"""Messages as dicts: into a chat, out of it, and into `ask` and `count_tokens`."""

from __future__ import annotations

import copy
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo import Message

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

SYSTEM = {"role": "system", "content": "Be brief."}
TOLD = {"role": "user", "content": "My name is Ada."}
HEARD = {"role": "assistant", "content": "Nice to meet you, Ada."}
ASKED = {"role": "user", "content": "What is my name?"}


def test_a_chat_continues_messages_that_are_dicts(demo: LoadedModel) -> None:
    chat = demo.chat(messages=[TOLD, HEARD], temperature=0)
    assert "Ada" in chat.ask("What is my name?")
    assert len(chat.messages) == 4


def test_messages_may_begin_with_the_system_text(demo: LoadedModel) -> None:
    chat = demo.chat(messages=[SYSTEM, TOLD, HEARD])
    assert chat.system == "Be brief."
    assert [message.role for message in chat.messages] == ["user", "assistant"]


def test_the_dicts_of_a_chat_make_the_same_chat_again(demo: LoadedModel) -> None:
    chat = demo.chat(system="Be brief.", temperature=0)
    chat.ask("My name is Ada.")
    dicts = json.loads(json.dumps(chat.to_dicts()))
    again = demo.chat(messages=dicts, temperature=0)
    assert again.to_dicts() == dicts == chat.to_dicts()
    assert [m["role"] for m in dicts] == ["system", "user", "assistant"]
    assert "Ada" in again.ask("What is my name?")


def test_messages_and_dicts_may_be_mixed_and_messages_keep_their_tokens(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("My name is Ada.")
    again = demo.chat(messages=[{**chat.messages[0]}, chat.messages[1]])
    assert again.messages == chat.messages
    assert again.messages[1].ids == chat.messages[1].ids is not None


def test_a_message_reads_like_a_dict() -> None:
    message = Message("user", "Hi")
    assert message["role"] == "user"
    assert dict(message) == message.to_dict() == {"role": "user", "content": "Hi"}
    assert message.get("name") is None
    assert {**message} == {"role": "user", "content": "Hi"}
    with pytest.raises(KeyError):
        message["ids"]


def test_the_messages_of_a_chat_may_be_edited_with_dicts(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.messages = [TOLD, HEARD]
    chat.messages.append(ASKED)
    chat.messages += [HEARD]
    chat.messages.extend([TOLD, HEARD])
    chat.messages[4:] = []
    chat.messages[3] = {"role": "assistant", "content": "Ada."}
    chat.messages.insert(0, HEARD)
    del chat.messages[0]
    assert all(type(message) is Message for message in chat.messages)
    assert [message.content for message in chat.messages][2:] == ["What is my name?", "Ada."]
    assert chat.ask("Thanks")


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({"role": "user"}, "has no 'content'"),
        ({"content": "Hi"}, "has no 'role'"),
        ({"role": "User", "content": "Hi"}, "has the role 'User', expected 'system' or 'user'"),
        ({"role": "model", "content": "Hi"}, "has the role 'model'"),
        ({"role": ["user"], "content": "Hi"}, r"has the role \['user'\]"),
        ({"role": "user", "content": "Hi", "name": "Ada"}, "has the key 'name', expected"),
        ({"role": "user", "contents": "Hi"}, r"has the key 'contents' \(did you mean content\?\)"),
        ("Hi", "is 'Hi', expected a Message or a dict"),
        (("user", "Hi"), r"is \('user', 'Hi'\), expected a Message or a dict"),
        (None, "is None, expected a Message or a dict"),
    ],
)
def test_what_is_no_message_is_refused_by_number(
    demo: LoadedModel, message: Any, fault: str
) -> None:
    chat = demo.chat()
    for call in (
        lambda: demo.chat(messages=[TOLD, HEARD, message]),
        lambda: demo.ask([TOLD, HEARD, message]),
        lambda: demo.count_tokens([TOLD, HEARD, message]),
        lambda: setattr(chat, "messages", [TOLD, HEARD, message]),
        lambda: chat.messages.extend([TOLD, HEARD, message]),
    ):
        with pytest.raises(edgesppo.UsageError, match=rf"\Amessage 3 {fault}"):
            call()
    with pytest.raises(edgesppo.UsageError, match=rf"\Amessage 1 {fault}"):
        chat.messages.append(message)
    assert chat.messages == []


@pytest.mark.parametrize("content", [None, 1, ["Hi"], b"Hi", "\ud800"])
def test_content_that_is_no_text_is_refused(demo: LoadedModel, content: Any) -> None:
    with pytest.raises(edgesppo.UsageError, match="the content of message 1 has "):
        demo.chat(messages=[{"role": "user", "content": content}, HEARD])


@pytest.mark.parametrize("messages", ["Hi", TOLD, Message("user", "Hi"), 5, None, b"Hi"])
def test_what_is_no_list_of_messages_is_refused(demo: LoadedModel, messages: Any) -> None:
    with pytest.raises(edgesppo.UsageError, match=r"messages have the type .*, expected a list"):
        demo.chat(messages=messages)


@pytest.mark.parametrize(
    ("messages", "fault"),
    [
        ([TOLD, HEARD, ASKED], "last message is a user's, .* pass all of them to model.ask()"),
        ([TOLD, TOLD], "message 2 has the role 'user', expected 'assistant'"),
        ([HEARD], "message 1 has the role 'assistant', expected 'user'"),
        ([SYSTEM, HEARD], "message 2 has the role 'assistant', expected 'user'"),
        ([SYSTEM, SYSTEM], "message 2 has the role 'system', expected 'user'"),
        ([TOLD, HEARD, SYSTEM], "message 3 has the role 'system', expected 'user'"),
    ],
)
def test_messages_out_of_turn_are_refused(
    demo: LoadedModel, messages: list[dict[str, str]], fault: str
) -> None:
    with pytest.raises(edgesppo.UsageError, match=fault):
        demo.chat(messages=messages)


def test_two_system_texts_are_refused(demo: LoadedModel) -> None:
    with pytest.raises(edgesppo.UsageError, match="there are two system texts"):
        demo.chat(messages=[SYSTEM], system="Be polite.")


def test_ask_answers_the_last_of_a_list_of_messages(demo: LoadedModel) -> None:
    assert "Ada" in demo.ask([TOLD, HEARD, ASKED], temperature=0)
    for messages in ([TOLD, HEARD], [SYSTEM], []):
        with pytest.raises(
            edgesppo.UsageError, match=r"(an assistant's|no question), expected a user's"
        ):
            demo.ask(messages)


def test_a_question_without_an_answer_in_the_history_is_refused(
    demo: LoadedModel, tmp_path: Path
) -> None:
    chat = demo.chat()
    chat.messages.append(TOLD)
    calls: list[Any] = [chat.undo, chat.regenerate, chat.continue_]
    for call in [*calls, lambda: chat.ask("Hi"), lambda: demo.save(chat, tmp_path / "odd.chat")]:
        with pytest.raises(edgesppo.UsageError):
            call()


def test_counting_tokens_of_messages_counts_the_prompt(demo: LoadedModel) -> None:
    chat = demo.chat(system="Be brief.", temperature=0)
    chat.ask("My name is Ada.")
    assert demo.count_tokens("Hello there") == len(demo.tokenize("Hello there"))
    asked = [*chat.to_dicts(), ASKED]
    chat.ask(ASKED["content"])
    assert abs(demo.count_tokens(asked) - chat.last.usage.prompt_tokens) <= 1
    answered = demo.count_tokens([*asked, {"role": "assistant", "content": "Ada."}])
    assert answered > demo.count_tokens(asked)
    assert demo.count_tokens([ASKED]) == len(demo.tokenize(ASKED["content"], chat=True))
    assert demo.count_tokens(demo.chat().messages) == 1
    alone = demo.count_tokens([SYSTEM])
    assert demo.count_tokens("Be brief.") < alone < demo.count_tokens([SYSTEM, TOLD])


def test_a_message_is_json_and_equals_its_dict(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0, max_tokens=5)
    chat.ask("Hi")
    asked, answer = chat.messages
    assert json.loads(json.dumps(chat.messages)) == chat.to_dicts()
    assert asked == {"role": "user", "content": "Hi"}
    assert not asked.__ne__({"role": "user", "content": "Hi"})
    assert asked != {"role": "user", "content": "Ho"}
    assert answer != edgesppo.Message("assistant", answer.content), "it has no token ids"
    for twin in (copy.deepcopy(answer), pickle.loads(pickle.dumps(answer))):
        assert (twin, twin.ids, hash(twin)) == (answer, answer.ids, hash(answer))
    with pytest.raises(TypeError, match="cannot be changed"):
        asked["content"] = "Ho"
    with pytest.raises(TypeError, match="cannot be changed"):
        asked.update(content="Ho")


def test_what_carries_no_meaning_in_a_message_is_accepted(demo: LoadedModel) -> None:
    empty = {"name": None, "tool_calls": [], "refusal": None, "function_call": None, "audio": {}}
    parts = [{"type": "text", "text": "Who "}, {"type": "input_text", "text": "are you?"}]
    given = [{"role": "user", "content": parts, **empty}]
    assert demo.tokenize(given, chat=True) == demo.tokenize("Who are you?", chat=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "Bob"}, "has the key 'name'.*write it into the content"),
        ({"tool_calls": [{"id": "1"}]}, "has the key 'tool_calls'.*calls no tools"),
        ({"refusal": "no"}, "has the key 'refusal'"),
        ({"content": [{"type": "image_url", "image_url": {}}]}, "'image_url'.*reads nothing else"),
        ({"content": [{"type": "text"}]}, "the text in the content of message 1"),
        ({"role": "developer"}, "'developer'.*use 'system'"),
        ({"role": "tool"}, "'tool'.*as a user's message"),
    ],
)
def test_what_means_something_is_refused_by_name_with_what_to_do(
    demo: LoadedModel, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(edgesppo.UsageError, match=said):
        demo.ask([{"role": "user", "content": "Hi", **changed}])
