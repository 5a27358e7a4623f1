"""Log-probabilities: the model's own, equal to the reference's softmax, one entry per token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgesppo import SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.llama import logprobs
from edgesppo.llama.model import Model
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.chat.result import TokenLogprob
    from edgesppo.loaded_model import LoadedModel

REFERENCE = ROOT / "tests" / "data" / "demo_reference_logits.npz"
QUESTION = "What is the capital of France?"
TOP = 5
EOS = 1
LIKELY = 0.01


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return np.asarray(wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True)))


def _bytes(row: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(row, dtype=np.float32)).cast("B")


@pytest.mark.parametrize("n_vocab", [1, 3, 255, 256, 2560, 256_000])
@pytest.mark.parametrize("n", [0, 1, 20])
def test_a_row_gives_its_log_softmax_and_its_best(n_vocab: int, n: int) -> None:
    row = np.random.default_rng(n_vocab).normal(0, 4, n_vocab).astype(np.float32)
    expected = _log_softmax(row)
    found = logprobs.of_row(_bytes(row), n_vocab // 2, n)
    assert found.logprob == pytest.approx(expected[n_vocab // 2], abs=1e-6)
    best = np.argsort(-row, kind="stable")[:n]
    assert [token for token, _ in found.top] == best.tolist()
    assert [value for _, value in found.top] == pytest.approx(expected[best].tolist(), abs=1e-6)


def test_of_equal_logits_the_lower_id_comes_first() -> None:
    found = logprobs.of_row(_bytes(np.full(700, 2.0)), 699, 3)
    assert [token for token, _ in found.top] == [0, 1, 2]
    assert found.logprob == pytest.approx(-math.log(700))


def test_they_are_the_softmax_of_the_very_row_and_near_the_references(
    demo_f32: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our log-probabilities equal those of the logits that llama.cpp computed for the same batch.

    llama.cpp itself differs from transformers mostly by its GELU, a table in half precision: a
    float64 forward pass with such a table comes within half of that difference, and one without
    within 0.00003 of transformers.
    """
    with np.load(REFERENCE) as stored:
        ids, positions, logits = stored["ids"], stored["positions"], stored["logits"]
    expected = _log_softmax(logits)
    model = Model(demo_f32)
    engine = Engine(model, cache_type="f32")
    of_row, rows = logprobs.of_row, list[np.ndarray]()

    def noted(row: memoryview, token: int, n: int) -> logprobs.RowLogprobs:
        rows.append(_log_softmax(np.frombuffer(row, dtype=np.float32)))
        return of_row(row, token, n)

    monkeypatch.setattr(logprobs, "of_row", noted)
    # An end token is not part of an answer, so another token is taken in its place.
    bans = ((EOS, -100), (model.end_of_turn, -100))
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=20, logit_bias=bans)
    off = off_log = off_likely = off_row = 0.0
    for position, wanted in zip(positions.tolist(), expected, strict=True):
        request = engine.add(engine.prepare(ids[: position + 1].tolist(), params))
        for _ in engine.stream(request):
            pass
        (found,) = request.logprobs
        assert len(found.top) == 20
        for token, value in found.top:
            off_row = max(off_row, abs(value - rows[-1][token]))
            off = max(off, abs(math.exp(value) - math.exp(wanted[token])))
            off_log = max(off_log, abs(value - wanted[token]))
            if value > math.log(LIKELY):
                off_likely = max(off_likely, abs(value - wanted[token]))
    engine.close()
    model.close()
    assert len(rows) == len(positions)
    with capsys.disabled():
        print(
            f"\n  {len(positions)} positions, the 20 best of each: largest difference of a "
            f"probability {off:.6f}, of a log-probability {off_log:.6f} ({off_likely:.6f} of "
            f"tokens above {LIKELY:.0%}); from the same logits' softmax {off_row:.1e}"
        )
    assert off_row < 1e-6
    assert off < 1e-3
    assert off_log < 1e-2


def _answered(demo: LoadedModel, **sampling: object) -> tuple[TokenLogprob, ...]:
    chat = demo.chat(temperature=0)
    chat.ask(QUESTION, **sampling)
    assert len(chat.last.logprobs) == chat.last.usage.completion_tokens
    return chat.last.logprobs


def test_every_token_has_an_entry_that_names_it(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    text = chat.ask(QUESTION, logprobs=TOP)
    entries = chat.last.logprobs
    assert tuple(entry.id for entry in entries) == chat.last.ids
    assert b"".join(entry.data for entry in entries).decode() == text
    assert "".join(entry.text for entry in entries) == text
    for entry in entries:
        assert len(entry.top) == TOP
        assert entry.top[0].id == entry.id, "greedy takes the best"
        assert entry.top[0].logprob == entry.logprob
        values = [other.logprob for other in entry.top]
        assert values == sorted(values, reverse=True)
        assert sum(math.exp(value) for value in values) <= 1 + 1e-6


def test_none_are_computed_unless_asked_for(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("log-probabilities were computed")

    monkeypatch.setattr(logprobs, "of_row", fail)
    chat = demo.chat(temperature=0)
    assert all(chunk.logprobs == () for chunk in chat.stream(QUESTION))
    assert chat.last.logprobs == ()


def test_with_zero_there_is_the_tokens_own_and_no_top(demo: LoadedModel) -> None:
    own, best = _answered(demo, logprobs=0), _answered(demo, logprobs=1)
    assert all(entry.top == () for entry in own)
    assert [entry.logprob for entry in own] == [entry.top[0].logprob for entry in best]


def test_they_are_the_models_own_whatever_the_sampling(demo: LoadedModel) -> None:
    plain = _answered(demo, logprobs=TOP)
    narrow = {"temperature": 0.3, "top_k": 1, "repeat_penalty": 1.01, "seed": 1}
    assert _answered(demo, logprobs=TOP, **narrow) == plain
    biased = _answered(demo, logprobs=TOP, logit_bias={plain[0].id: -100})
    assert biased[0].id != plain[0].id
    assert biased[0].top == plain[0].top


def test_chunks_bring_every_entry_once_also_while_text_is_held_back(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chunks = list(chat.stream(QUESTION, logprobs=1, stop=["The capital of Spain"]))
    assert sum((chunk.logprobs for chunk in chunks), ()) == chat.last.logprobs
    held = [chunk for chunk in chunks if not chunk.text and chunk.logprobs]
    assert [chunk.logprobs[0].text for chunk in held] == ["The", " capital", " of"]
    assert all(len(chunk.logprobs) <= 1 for chunk in chunks)


def test_the_tokens_of_a_stop_string_have_entries(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chunks = list(chat.stream(QUESTION, logprobs=1, stop=["capital of"]))
    assert chat.last.text == "The "
    assert [entry.text for entry in chat.last.logprobs] == ["The", " capital", " of"]
    assert len(chat.last.logprobs) == chat.last.usage.completion_tokens
    assert chunks[-1].logprobs == chat.last.logprobs[-1:]


def test_the_bytes_of_one_character_have_an_entry_each(demo: LoadedModel) -> None:
    smile = "\U0001f600"
    ids = [
        token
        for token in demo.tokenize(smile)
        if len(demo._interior.engine.model.piece(token)) == 1
    ]
    assert len(ids) == 4, "the demo spells it in bytes"
    chat = demo.chat(max_tokens=4, temperature=0)
    text, parts = "", []
    for wanted in ids:
        bias = {token: -100 for token in range(256) if token != wanted}
        chat.clear()
        text = chat.ask(QUESTION, logit_bias={**bias, wanted: 100}, logprobs=0, max_tokens=1)
        parts.append(chat.last.logprobs[0])
        assert text == "�"
        assert parts[-1].text == "�"
    assert b"".join(part.data for part in parts).decode() == smile


def test_two_answers_at_once_keep_their_rows_apart(demo_gguf: Path) -> None:
    model = Model(demo_gguf)
    prompts = [demo_prompt(model, text) for text in (QUESTION, "Hello!")]
    params = SamplingParams(temperature=0, max_tokens=6, logprobs=3)
    alone, together = [], []
    for n_seqs, found in ((1, alone), (2, together)):
        engine = Engine(model, n_seqs=n_seqs)
        requests = [engine.add(engine.prepare(prompt, params)) for prompt in prompts]
        while any(request.finish_reason is None for request in requests):
            engine.step()
        found += [request.logprobs for request in requests]
        engine.close()
    model.close()
    for one, two in zip(alone, together, strict=True):
        assert [[token for token, _ in row.top] for row in one] == [
            [token for token, _ in row.top] for row in two
        ]
        expected = [row.logprob for row in one]
        assert [row.logprob for row in two] == pytest.approx(expected, abs=0.05)


def demo_prompt(model: Model, text: str) -> list[int]:
    """A user turn, ready to be answered."""
    from edgesppo.chat import template
    from edgesppo.chat.messages import Message

    return template.encode(model, [Message("user", text)])
