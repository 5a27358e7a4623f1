"""Long texts are split without changing their tokens, and refused if they can never fit."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgesppo
from edgesppo.chat.template import encode
from edgesppo.llama.text_splitter import TextSplitter
from edgesppo.llama.tokenizer import as_utf8
from tests.llama.test_tokenizer import CONTROL, PLAIN

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.llama.model import Model
    from edgesppo.loaded_model import LoadedModel

MEGABYTES = 10
ONE_CHARACTER = ["a", " ", "\n", "é", "🙂", "\t", "\0", "<", "漢", "\u2581", "=", "0"]
REPEATED = [" \n", "<h1>", "<0x0A>", "<end_of_turn>", "👩‍👩‍👧‍👦", "The quick brown fox. ", "aé"]
# An upper bound: the work takes a second or two.
PATIENCE_S = 60


texts = st.lists(
    st.tuples(st.sampled_from([*PLAIN, *CONTROL, *ONE_CHARACTER, *REPEATED]), st.integers(1, 70)),
    max_size=8,
).map(lambda parts: "".join(part * n for part, n in parts))


@given(text=texts | st.text(max_size=80), size=st.integers(1, 64))
@settings(max_examples=300, deadline=None)
def test_the_tokens_of_a_text_are_those_of_its_parts(model: Model, text: str, size: int) -> None:
    text = as_utf8(text).decode()
    parts = list(model.tokenizer._splitter().parts(text, size))
    assert "".join(parts) == text
    assert all(parts)
    tokens = [id_ for part in parts for id_ in model.weights.tokenize(part.encode(), special=False)]
    assert tokens == model.weights.tokenize(text.encode(), special=False)


def test_a_long_text_has_the_tokens_of_the_whole(model: Model) -> None:
    rng = random.Random(5)
    for _ in range(5):
        text = "".join(rng.choices(PLAIN, k=9000))
        whole = model.tokenizer._tokenize(as_utf8(text))
        assert model.tokenize(text) == whole
        assert model.fewest_tokens(text) <= len(whole)


def test_a_long_text_is_read_until_there_are_enough_tokens(model: Model) -> None:
    text = "The quick brown fox. " * 1000
    whole = model.tokenize(text)
    found = model.tokenize(text, enough=700)
    assert found == whole[: len(found)]
    assert 700 <= len(found) < 1500 < len(whole)


def test_texts_are_cut_where_no_piece_goes_on() -> None:
    cuts = TextSplitter(["ab", "bc", "  ", "   ", "x"], ["   "])
    assert list(cuts.parts("abcabc", 1)) == ["abc", "abc"], "only c and a stand in no piece"
    assert list(cuts.parts("abcabcabc", 7)) == ["abcabc", "abc"]
    assert list(cuts.parts(" " * 14, 4)) == ["   ", "   ", "   ", "     "], "pieces reach back"
    assert cuts.longest == 3


def _in_time(work: Any) -> Any:
    """The result of `work`, or the error it raised; fails instead of hanging if it does not end."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except edgesppo.EdgesppoError as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert outcome, f"not over in {PATIENCE_S} s"
    return outcome[0]


@pytest.mark.parametrize("text", ONE_CHARACTER)
def test_a_prompt_of_megabytes_of_one_character_ends_in_time(demo: LoadedModel, text: str) -> None:
    """The error names no number of tokens to shorten by: only a lower bound is known."""
    prompt = text * (MEGABYTES * 10**6 // len(text.encode()))
    chat = demo.chat(temperature=0)
    for overflow in ("trim", "error"):
        chat.overflow = overflow
        error = _in_time(lambda: chat.ask(f"x{prompt}x"))
        assert isinstance(error, edgesppo.ContextOverflow)
        assert error.needed > error.available == demo.n_ctx
        assert error.at_least
        assert f"shorten it to fewer than {error.available:,}" in str(error)
        assert "shorten it by" not in str(error)
    assert chat.messages == []


@pytest.mark.parametrize("text", ["a", " ", "é", "\t", " \n", "<end_of_turn>"])
def test_any_text_is_tokenised_in_time_that_grows_with_its_length(
    demo: LoadedModel, text: str
) -> None:
    """A megabyte of text, for which quadratic time would be a minute or more."""
    n = 10**6 // len(text.encode())
    ids = _in_time(lambda: demo.tokenize(text * n))
    few = demo.tokenize(text * 310)
    assert len(ids) == pytest.approx(len(few) * n / 310, rel=0.05, abs=2)


@pytest.mark.parametrize("words", [520, 2000])
def test_one_message_longer_than_the_context_says_by_how_many_tokens(
    demo: LoadedModel, words: int
) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("My name is Ada.")
    before = list(chat.messages)
    message = edgesppo.Message("user", "a b " * words)
    alone = len(encode(demo._interior.engine.model, [message]))
    with pytest.raises(edgesppo.ContextOverflow) as caught:
        chat.ask(message.content)
    assert (caught.value.needed, caught.value.at_least) == (alone + 1, False)
    assert f"has {alone:,} tokens" in str(caught.value)
    assert f"shorten it by {alone + 1 - demo.n_ctx:,} or more" in str(caught.value)
    assert "n_ctx (--n-ctx)" not in str(caught.value), "it is as large as it can be"
    assert chat.messages == before
    shorter = "a b " * (len("a b " * words) * demo.n_ctx // alone // 4 - 30)
    chat.ask(shorter, max_tokens=2)


def test_a_history_of_any_length_is_trimmed_in_time(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0, max_tokens=8)
    chat.messages = [
        edgesppo.Message("user", "Hi"),
        edgesppo.Message("assistant", "Hello."),
    ] * 30_000
    _in_time(lambda: chat.ask("Who are you?"))
    assert chat.last.left_out > 29_900
    assert len(chat.messages) == 60_002


def test_a_smaller_context_than_could_be_says_so(demo_gguf: Path) -> None:
    with (
        edgesppo.load(demo_gguf, n_ctx=64) as model,
        pytest.raises(edgesppo.ContextOverflow, match=r"or use a larger n_ctx \(--n-ctx\)"),
    ):
        model.ask("word " * 200)
