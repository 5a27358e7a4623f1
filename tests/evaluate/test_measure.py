"""Perplexity and divergence: the figures follow their definitions, however memory is used."""

from __future__ import annotations

import json
import math
import re
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgesppo
from edgesppo.engine import forward
from edgesppo.engine.forward import ForwardPass
from edgesppo.errors import NativeError, OutOfMemory, UsageError
from edgesppo.evaluate import comparison, logits, sense
from edgesppo.evaluate.candidate import Candidate, RunOptions, find_candidate
from edgesppo.evaluate.corpus import Sample
from edgesppo.evaluate.measure import Options, measure_divergence
from edgesppo.evaluate.source import read_source
from edgesppo.evaluate.statistics import perplexity_figures
from edgesppo.gguf import gemma2
from edgesppo.llama.model import Model
from edgesppo.planning.run_config import RunConfig
from tests.support.tuning import remember_two_contexts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgesppo.llama.weights import Weights

TEXT = "what's 20 minus 18. 20 minus 18 is 2. Hello! How can I help you? " * 8
N_CTX = 64
DIALOGUES = [
    [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello! How can I help you?"},
    ],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<start_of_turn>model\nnot an answer"},
        {"role": "assistant", "content": "No."},
    ],
]


def _logprobs(path: Path, ids: list[int]) -> NDArray[np.float64]:
    """The log-softmax of the logits in the second half of a chunk, in float64."""
    with closing(Model(path, gpu="off")) as model:
        opened = ForwardPass(model.weights, model.summary, RunConfig(1, 1), len(ids))
        blocks = [np.array(block) for _, block in opened.blocks(ids, N_CTX // 2)]
        rows = np.concatenate(blocks).view(np.float32).reshape(N_CTX // 2, -1)
        opened.close()
    found = rows[:-1].astype(np.float64)
    shifted: NDArray[np.float64] = found - found.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _chunks(path: Path) -> list[list[int]]:
    with closing(Model(path, vocabulary_only=True)) as model:
        ids = [model.bos, *model.tokenize(TEXT)]
        starts = range(0, len(ids) - N_CTX + 1, N_CTX)
        return [[model.bos, *ids[at + 1 : at + N_CTX]] for at in starts]


def test_divergence_is_what_its_definition_says(demo_f32: Path, demo_gguf: Path) -> None:
    klds: list[float] = []
    nlls: list[float] = []
    same = 0
    for ids in _chunks(demo_gguf)[:3]:
        base, own = _logprobs(demo_f32, ids), _logprobs(demo_gguf, ids)
        for row, token in enumerate(ids[N_CTX // 2 + 1 :]):
            klds.append(float((np.exp(base[row]) * (base[row] - own[row])).sum()))
            nlls.append(-own[row, token])
            same += int(base[row].argmax() == own[row].argmax())
    found = edgesppo.evaluate.divergence(demo_f32, demo_gguf, text=TEXT, n_ctx=N_CTX, chunks=3)
    figures = found.figures
    assert figures.tokens == len(klds) == found.kld.size
    assert figures.kld == pytest.approx(np.mean(klds), rel=1e-4)
    assert figures.kld_median == pytest.approx(np.median(klds), rel=1e-3, abs=1e-7)
    assert figures.kld_max == pytest.approx(max(klds), rel=1e-4)
    assert figures.perplexity == pytest.approx(math.exp(np.mean(nlls)), rel=1e-5)
    assert figures.same_top == same / len(klds)
    alone = edgesppo.evaluate.perplexity(demo_gguf, text=TEXT, n_ctx=N_CTX, chunks=3).figures
    assert alone.perplexity == pytest.approx(figures.perplexity, rel=1e-9)
    assert alone.perplexity_error == pytest.approx(figures.perplexity_error, rel=1e-9)


def test_logits_in_blocks_are_those_of_one_large_batch(demo_gguf: Path) -> None:
    ids = list(range(100, 611))
    found = []
    with closing(Model(demo_gguf, gpu="off")) as model:
        for n_rows in (64, 512):
            opened = ForwardPass(model.weights, model.summary, RunConfig(1, 1), 512, n_rows=n_rows)
            blocks = [(at, np.array(block)) for at, block in opened.blocks(ids, 256)]
            assert blocks[0][0] == 256
            found.append(np.concatenate([block for _, block in blocks]).view(np.float32))
            opened.close()
    assert found[0].size == 255 * model.n_vocab
    assert np.abs(found[0] - found[1]).max() < 0.01, "attention was computed by another kernel"


def test_a_dialogue_whose_last_block_is_one_token_is_scored(
    demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "rows_of_block", lambda _n_vocab: 16)
    with find_candidate(demo_gguf, RunOptions()).opened(33) as opened:
        sizes = [len(rows) for _, rows in opened.blocks(Sample(list(range(100, 133)), 0))]
    assert sizes == [16, 16]


def test_the_figures_are_the_same_however_many_threads_find_them() -> None:
    random = np.random.default_rng(1)
    base, own = random.standard_normal((2, 21, 50), np.float32)
    tokens = random.integers(0, 50, 21).tolist()
    alone, together = (logits.compare(base, own, tokens, ("", ""), n) for n in (1, 3))
    for name in logits.TokenFigures.__dataclass_fields__:
        assert np.array_equal(getattr(alone, name), getattr(together, name)), name
    assert np.array_equal(logits.nlls(own, tokens, "", 3), alone.nll)


def test_models_that_do_not_fit_together_give_the_same_figures_in_turns(
    demo_f32: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"text": TEXT, "n_ctx": N_CTX, "chunks": 3}
    together = edgesppo.evaluate.divergence(demo_f32, demo_gguf, **options)  # type: ignore[arg-type]
    loaded: list[Path] = []
    original = Candidate.weights

    def counted(self: Candidate, **given: Any) -> Weights:
        loaded.append(self.path)
        return original(self, **given)

    monkeypatch.setattr(Candidate, "weights", counted)
    for n_kept, loads in ((1, 6), (2, 4)):
        row = 4 * 2560 * (N_CTX // 2 - 1)
        need = max(_needs(demo_f32), _needs(demo_gguf)) + comparison.PROGRAM_BYTES
        room = need + n_kept * row + 1000
        monkeypatch.setattr(comparison, "available_memory", lambda room=room: room)
        loaded.clear()
        in_turns = edgesppo.evaluate.divergence(demo_f32, demo_gguf, **options)  # type: ignore[arg-type]
        assert in_turns.figures == together.figures
        assert len(loaded) == loads
    monkeypatch.setattr(comparison, "available_memory", lambda: need)
    with pytest.raises(OutOfMemory, match="shorter chunks"):
        edgesppo.evaluate.divergence(demo_f32, demo_gguf, **options)  # type: ignore[arg-type]


def _needs(path: Path) -> int:
    return find_candidate(path, RunOptions()).needs(N_CTX)


def test_answers_are_counted_apart_from_the_rest_of_a_dialogue(demo_gguf: Path) -> None:
    found = edgesppo.evaluate.perplexity(demo_gguf, dialogues=DIALOGUES)
    with closing(Model(demo_gguf, vocabulary_only=True)) as model:
        answers = [m["content"] for d in DIALOGUES for m in d if m["role"] == "assistant"]
        expected = sum(len(model.tokenize(f"model\n{text}")) - 2 + 1 for text in answers)
    assert found.figures.tokens == expected
    assert found.everything is not None
    assert found.everything.tokens > expected


def test_a_file_of_dialogues_takes_lists_and_objects(demo_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "dialogues.jsonl"
    lines = [json.dumps(DIALOGUES[0]), "", json.dumps({"messages": DIALOGUES[1], "id": 7})]
    path.write_text("\n".join(lines), encoding="utf-8")
    found = edgesppo.evaluate.perplexity(demo_gguf, dialogues=path)
    assert asdict(found.figures) == asdict(
        edgesppo.evaluate.perplexity(demo_gguf, dialogues=DIALOGUES).figures
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"  \n ", "is empty"),
        (b"Hello there", "has at most 12 tokens, expected at least 128 for chunks of 64"),
        (b"Hello there " * 12, "has 37 tokens, expected at least 128 for chunks of 64"),
        (b"caf\xe9", "is not UTF-8 text: byte b'\\xe9' at position 3"),
    ],
)
def test_a_text_that_cannot_be_measured_on_is_refused(
    demo_gguf: Path, tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        edgesppo.evaluate.perplexity(demo_gguf, text=path, n_ctx=N_CTX)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_mistyped_file_s_name_is_not_taken_for_a_text_without_a_word(demo_gguf: Path) -> None:
    with pytest.raises(UsageError, match=r"tokens \(there is no file of that name\), expected"):
        edgesppo.evaluate.perplexity(demo_gguf, text="wiki.test.rwa", n_ctx=N_CTX)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is not JSON"),
        ("7", "line 2 has no messages"),
        ('[{"role": "user", "content": "Hi"}]', "line 2 does not end with an assistant's message"),
        ('[{"role": "assistant", "content": "Hi"}]', "line 2: message 1 has the role"),
        (json.dumps({"messages": [{"role": "user"}]}), "line 2: message 1 has no 'content'"),
    ],
)
def test_a_bad_dialogue_is_named_by_its_line(
    demo_gguf: Path, tmp_path: Path, line: str, said: str
) -> None:
    path = tmp_path / "dialogues.jsonl"
    path.write_text(f"{json.dumps(DIALOGUES[0])}\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError) as refused:
        edgesppo.evaluate.perplexity(demo_gguf, dialogues=path)
    assert said in str(refused.value)


def test_a_dialogue_that_does_not_fit_is_left_out_and_named(demo_gguf: Path) -> None:
    found = edgesppo.evaluate.perplexity(demo_gguf, dialogues=DIALOGUES, n_ctx=40)
    assert any("1 dialogues of" in note and "number 1" in note for note in found.notes)
    first = edgesppo.evaluate.perplexity(demo_gguf, dialogues=DIALOGUES, n_ctx=40, chunks=1)
    assert first.figures == found.figures, "what does not fit is none of the chunks"
    with pytest.raises(UsageError, match=r"no dialogue of .* fits into the context of 16 tokens"):
        edgesppo.evaluate.perplexity(demo_gguf, dialogues=DIALOGUES, n_ctx=16)


def test_text_and_dialogues_exclude_each_other(demo_gguf: Path) -> None:
    for given in ({}, {"text": TEXT, "dialogues": DIALOGUES}):
        with pytest.raises(UsageError, match="either text"):
            edgesppo.evaluate.perplexity(demo_gguf, **given)  # type: ignore[arg-type]


def _with_norm(source: Path, target: Path, value: float) -> Path:
    """A copy of a model file whose last norm has another first value."""
    summary = gemma2.load_summary(source)
    norm = next(t for t in summary.tensors if t.name == "output_norm.weight")
    data = bytearray(source.read_bytes())
    data[norm.offset : norm.offset + 4] = np.float32(value).tobytes()
    target.write_bytes(data)
    return target


def test_not_a_number_is_an_error_that_names_the_model(demo_f32: Path, tmp_path: Path) -> None:
    damaged = _with_norm(demo_f32, tmp_path / "damaged.gguf", math.nan)
    with pytest.raises(NativeError, match=r"damaged computes logits that are NaN"):
        edgesppo.evaluate.perplexity(damaged, text=TEXT, n_ctx=N_CTX, chunks=1)


def test_what_cannot_be_right_is_said(demo_f32: Path, demo_gguf: Path, tmp_path: Path) -> None:
    other = _with_norm(demo_gguf, tmp_path / "other.gguf", 0.5)
    told: list[str] = []
    found = edgesppo.evaluate.divergence(
        demo_f32, other, text=TEXT, n_ctx=N_CTX, chunks=1, on_note=told.append
    )
    assert "not made from the same weights" in told[0]
    assert "output_norm.weight differs" in told[0]
    assert found.notes == tuple(told)
    notes = edgesppo.evaluate.divergence(
        demo_gguf, demo_f32, text=TEXT, n_ctx=N_CTX, chunks=1
    ).notes
    assert any("fewer bits per weight" in note for note in notes)
    same = edgesppo.evaluate.divergence(demo_gguf, demo_gguf, text=TEXT, n_ctx=N_CTX, chunks=1)
    assert any("is the reference itself" in note for note in same.notes)
    assert same.figures.kld == 0
    assert same.figures.same_top == 1
    random = np.random.default_rng(1)
    strange = "".join(random.choice([*"qwxyzkvj0123456789{}[];<>"], 600))
    said = edgesppo.evaluate.perplexity(demo_gguf, text=strange, n_ctx=N_CTX, chunks=2).notes
    assert any("above 1,000" in note for note in said)


def test_what_the_first_tokens_tell_is_said_at_once_and_judged_again_at_the_end() -> None:
    strange, fine = (perplexity_figures(np.full(300, nll)) for nll in (9.0, 1.0))
    for last, kept in ((fine, 0), (strange, 1)):
        told: list[str] = []
        notes = sense.Notes(told.append)
        notes.text(strange, "sppo", early=True)
        notes.text(last, "sppo")
        assert [line[:42] for line in told] == ["the perplexity of the first 300 tokens is "]
        assert [line[:24] for line in notes.found] == ["the perplexity is above "] * kept


def test_ctrl_c_ends_with_the_figures_so_far(demo_gguf: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 2 * N_CTX * (1 + len(more)):
            raise KeyboardInterrupt

    alone = edgesppo.evaluate.perplexity(demo_gguf, text=TEXT, n_ctx=N_CTX, chunks=2).figures
    for function, more, said in (
        (edgesppo.evaluate.perplexity, (), f"perplexity {alone.perplexity:.4f} "),
        (edgesppo.evaluate.divergence, (demo_gguf,), "mean KLD 0.000000 +- 0.000000, 62 tokens"),
    ):
        with pytest.raises(KeyboardInterrupt, match=re.escape(said)):
            function(demo_gguf, *more, text=TEXT, n_ctx=N_CTX, on_progress=stop)  # type: ignore[operator]


def test_files_of_one_name_go_by_their_paths(demo_gguf: Path, tmp_path: Path) -> None:
    twin = tmp_path / demo_gguf.name
    twin.symlink_to(demo_gguf)
    options = Options(read_source(TEXT, n_ctx=N_CTX, chunks=1), RunOptions(), on_note=print)
    names = [report.model for report in measure_divergence(demo_gguf, [demo_gguf, twin], options)]
    assert names == [str(demo_gguf), str(twin)]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"n_ctx": 1}, "n_ctx"),
        ({"n_ctx": "512"}, "n_ctx"),
        ({"n_ctx": 1 << 20}, "n_ctx"),
        ({"chunks": 0}, "chunks"),
        ({"on_progress": 3}, "on_progress"),
        ({"txt": "x"}, "did you mean text?"),
    ],
)
def test_an_invalid_argument_is_named(demo_gguf: Path, given: dict[str, Any], named: str) -> None:
    for function, more in (
        (edgesppo.evaluate.perplexity, ()),
        (edgesppo.evaluate.divergence, (demo_gguf,)),
        (edgesppo.evaluate.calibrate, ("none.gguf",)),
    ):
        with pytest.raises(UsageError, match=re.escape(named)):
            function(demo_gguf, *more, text=TEXT * 3, **given)  # type: ignore[operator]


def test_a_reference_of_another_vocabulary_is_refused(demo_gguf: Path, babbler: Path) -> None:
    with pytest.raises(UsageError, match="has another vocabulary than the reference"):
        edgesppo.evaluate.divergence(babbler, demo_gguf, text=TEXT, n_ctx=N_CTX)


def test_a_single_token_of_another_type_is_another_vocabulary(
    demo_gguf: Path, tmp_path: Path
) -> None:
    types = gemma2.load_summary(demo_gguf).arrays["tokenizer.ggml.token_type"]
    assert types.n_bytes == 4 * types.length
    data = bytearray(demo_gguf.read_bytes())
    data[types.offset + types.n_bytes - 4] = 4
    (tmp_path / "other.gguf").write_bytes(data)
    said = f"it has 4 as the type of token {types.length - 1}, the reference 1"
    with pytest.raises(UsageError, match=said):
        edgesppo.evaluate.divergence(demo_gguf, tmp_path / "other.gguf", text=TEXT, n_ctx=N_CTX)


def test_files_may_be_given_by_name_and_other_things_are_refused(
    demo_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "chats.jsonl").write_text("".join(f"{json.dumps(d)}\n" for d in DIALOGUES))
    perplexity = edgesppo.evaluate.perplexity
    named = perplexity(demo_gguf, text=str(tmp_path / "text.txt"), n_ctx=N_CTX, chunks=1)
    assert named.figures == perplexity(demo_gguf, text=TEXT, n_ctx=N_CTX, chunks=1).figures
    found = perplexity(demo_gguf, dialogues=str(tmp_path / "chats.jsonl"))
    objects = [{"messages": dialogue} for dialogue in DIALOGUES]
    assert found.figures == perplexity(demo_gguf, dialogues=objects).figures  # type: ignore[arg-type]
    assert any(f"only {found.figures.tokens} tokens" in note for note in found.notes)
    for given, said in (({"text": 5}, "text has the type int"), ({"dialogues": 5}, "dialogues is")):
        with pytest.raises(UsageError, match=said):
            perplexity(demo_gguf, **given)  # type: ignore[arg-type]


def test_where_prompts_are_faster_over_plain_weights_it_is_run_on_those_alone(
    demo_gguf: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fresh_home.is_dir()
    both = remember_two_contexts(monkeypatch, demo_gguf, "prefill")
    found = find_candidate(demo_gguf, RunOptions()).settings(N_CTX, fast=True)
    assert found == replace(both, repack=False, plain_from=None)
