"""`LoadedModel.score`: the log-probability of every token of a text or a chat."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo import Closed, ContextOverflow, UsageError
from edgesppo.chat import scoring
from edgesppo.engine.forward import ForwardPass

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo import LoadedModel

QUESTION = "What is the capital of France?"


def test_a_text_is_scored_token_by_token_in_the_ids_of_tokenize(demo: LoadedModel) -> None:
    text = "The capital of France is Paris, naïvely <end_of_turn>."
    found = demo.score(text)
    assert [scored.id for scored in found] == demo.tokenize(text)
    assert b"".join(scored.data for scored in found).decode() == text
    assert all(scored.logprob <= 0 for scored in found)
    assert all(scored.top == () for scored in found)


def test_an_answer_scores_as_it_did_when_it_was_generated(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0, logprobs=2)
    chat.ask(QUESTION)
    assert chat.last is not None
    told = chat.last.logprobs
    assert told
    scored = demo.score(chat.to_dicts(), logprobs=2)
    answer = scored[-2 - len(told) : -2]  # before <end_of_turn> and a line feed
    assert [token.id for token in answer] == [token.id for token in told]
    for mine, other in zip(answer, told, strict=True):
        assert mine.logprob == pytest.approx(other.logprob, abs=5e-3)
        assert mine.top[0].id == other.top[0].id == mine.id
        assert mine.top[0].logprob == mine.logprob


def test_messages_are_scored_with_the_control_tokens_of_their_turns(demo: LoadedModel) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    found = demo.score(messages)
    assert [scored.id for scored in found] == demo.tokenize(messages)[1:]
    assert found[0].text == "<start_of_turn>"


def test_the_more_probable_continuation_scores_higher(demo: LoadedModel) -> None:
    def of_answer(text: str) -> float:
        dialogue = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": text}]
        return sum(scored.logprob for scored in demo.score(dialogue))

    right, wrong = (of_answer(f"The capital of France is {city}.") for city in ("Paris", "Rome"))
    assert right > wrong + 1


def test_nothing_to_score_is_no_error(demo: LoadedModel) -> None:
    assert demo.score("") == []


def test_what_cannot_be_scored_is_refused(demo: LoadedModel) -> None:
    with pytest.raises(ContextOverflow, match="tokens to score, but the context holds 512"):
        demo.score("word " * 600)
    with pytest.raises(UsageError, match="logprobs"):
        demo.score("Hi", logprobs=21)
    with pytest.raises(UsageError, match="expected 'user'"):
        demo.score([{"role": "assistant", "content": "Hello!"}])


def test_a_closed_model_scores_nothing(demo_gguf: Path) -> None:
    model = edgesppo.load(demo_gguf)
    assert len(model.score("Hi there")) == 2
    model.close()
    with pytest.raises(Closed):
        model.score("Hi there")


def test_closing_stops_what_has_only_begun_to_be_scored(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = edgesppo.load(demo_gguf)
    closing = threading.Thread(target=model.close)

    class Slow(ForwardPass):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            closing.start()
            while not model._scorer._closed:
                closing.join(0.001)

    monkeypatch.setattr(scoring, "ForwardPass", Slow)
    with pytest.raises(Closed):
        model.score("Hi there")
    closing.join()
