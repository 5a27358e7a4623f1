"""Messages -> token ids, against the checkpoint's own chat template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jinja2
import pytest

import edgesppo
from edgesppo.chat import template
from edgesppo.chat.messages import Message
from tests.conftest import DEMO

if TYPE_CHECKING:
    from edgesppo.loaded_model import LoadedModel

CHATS = [
    [("user", "Hello")],
    [("user", "  spaces around \n"), ("assistant", " An answer. "), ("user", "And now?")],
    [
        ("user", "one"),
        ("assistant", "two\n\nthree"),
        ("user", "four"),
        ("assistant", ""),
        ("user", "x"),
    ],
    [("user", "")],
]


def _by_template(demo: LoadedModel, chat: list[tuple[str, str]]) -> list[int]:
    """The rendered template, tokenised with control tokens recognised, as transformers does."""
    config = json.loads((DEMO / "tokenizer_config.json").read_text())
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    text = environment.from_string(config["chat_template"]).render(
        messages=[{"role": role, "content": content} for role, content in chat],
        bos_token="<bos>",
        add_generation_prompt=True,
    )
    return demo._interior.engine.model.weights.tokenize(text.encode(), special=True)


@pytest.mark.parametrize("chat", CHATS)
def test_ids_equal_those_of_the_checkpoints_template(
    demo: LoadedModel, chat: list[tuple[str, str]]
) -> None:
    ids = template.encode(
        demo._interior.engine.model, [Message(role, content) for role, content in chat]
    )
    assert ids == _by_template(demo, chat)


def test_there_is_exactly_one_bos_at_the_start(demo: LoadedModel) -> None:
    ids = template.encode(
        demo._interior.engine.model, [Message("system", "<bos>"), Message("user", "<bos>")]
    )
    assert ids[0] == demo._interior.engine.model.bos == 2
    assert ids.count(demo._interior.engine.model.bos) == 1


def test_system_text_goes_in_front_of_the_first_user_turn(demo: LoadedModel) -> None:
    merged = template.encode(demo._interior.engine.model, [Message("user", "Be brief.\n\nHello")])
    split = template.encode(
        demo._interior.engine.model, [Message("system", " Be brief. "), Message("user", "Hello ")]
    )
    assert merged == split


def test_an_answers_own_tokens_are_fed_back_as_they_are(demo: LoadedModel) -> None:
    odd = (*demo.tokenize("H"), *demo.tokenize("i"))
    messages = [Message("user", "a"), Message("assistant", "Hi", odd), Message("user", "b")]
    ids = template.encode(demo._interior.engine.model, messages)
    assert tuple(demo.tokenize("Hi")) != odd
    assert list(odd) == ids[ids.index(odd[0]) : ids.index(odd[0]) + len(odd)]


@pytest.mark.parametrize(
    ("roles", "complaint"),
    [
        ([], "'none'"),
        (["system"], "'none'"),
        (["assistant"], "message 1 has the role 'assistant', expected 'user'"),
        (["user", "user"], "message 2 has the role 'user', expected 'assistant'"),
        (["user", "system"], "message 2 has the role 'system', expected 'assistant'"),
        (["user", "assistant"], "the last message has the role 'assistant', expected 'user'"),
        (["tool"], "message 1 has the role 'tool', expected 'user'"),
    ],
)
def test_turns_out_of_order_are_refused_by_number(
    demo: LoadedModel, roles: list[str], complaint: str
) -> None:
    with pytest.raises(edgesppo.UsageError, match=complaint):
        template.encode(demo._interior.engine.model, [Message(role, "x") for role in roles])


def test_content_that_is_no_text_is_refused(demo: LoadedModel) -> None:
    with pytest.raises(edgesppo.UsageError, match="message 1 has the type NoneType"):
        template.encode(demo._interior.engine.model, [Message("user", None)])  # type: ignore[arg-type]
