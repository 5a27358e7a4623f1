"""Sampling that follows a grammar: every answer fits it, with the distribution it should have."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest

from edgesppo import SamplingParams, schema
from edgesppo.engine.engine import Engine
from edgesppo.errors import NativeError
from edgesppo.llama.batch import Batch
from edgesppo.llama.context import Context
from edgesppo.llama.grammar import Grammar
from edgesppo.llama.grammar_sampler import ConstrainedChain
from edgesppo.llama.sampler_chain import build_chain
from edgesppo.planning.run_config import ContextParams
from tests.support.schema_cases import CASES, Case
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesppo.llama.model import Model
    from edgesppo.loaded_model import LoadedModel

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
WORDS = ["Paris", "Par", "London", "the", "42", "7", "é"]
OTHERS = ["I am", "The answer", "That is", "Yes", "No", "Hello", "You", "Paris"]


class _Letters:
    """Checks a text against llama.cpp's own grammar, byte by byte."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._tokens = {model.piece(t): t for t in model.weights.first_bytes()[1]}

    def reads(self, gbnf: str, text: str) -> bool:
        grammar = Grammar(self._model.weights, gbnf)
        try:
            for byte in text.encode():
                token = self._tokens[bytes([byte])]
                if not self._allows(grammar, token):
                    return False
                grammar.accept(token)
            return self._allows(grammar, self._model.end_of_turn)
        finally:
            grammar.close()

    def _allows(self, grammar: Grammar, token: int) -> bool:
        rows = np.zeros(1, _CANDIDATE)
        rows["id"] = token
        grammar.apply(rows)
        return bool(rows["logit"][0] == 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_llama_cpp_reads_a_grammar_as_it_is_meant(demo: LoadedModel, case: Case) -> None:
    letters = _Letters(demo._interior.engine.model)
    gbnf = schema.grammar(case.schema)
    for text in case.valid:
        assert letters.reads(gbnf, text), text
    for text in (*case.invalid, *case.unmade):
        assert not letters.reads(gbnf, text), text


def _answer(model: LoadedModel, asked: Any, **sampling: Any) -> tuple[str, str, list[int]]:
    """The text, finish reason and ids of an answer that follows a schema."""
    ids = model.tokenize("Say something.", chat=True)
    params = SamplingParams(**{"max_tokens": 100, "top_p": 1.0, **sampling})
    request = model._interior.engine.add(
        model._interior.engine.prepare(ids, params, grammar=schema.grammar(asked))
    )
    for _ in model._interior.engine.stream(request):
        pass
    tokens = request.tokens[request.n_prompt :]
    text = model._interior.engine.model.detokenize(tokens).decode("utf-8")
    return text, str(request.finish_reason), tokens


@pytest.mark.parametrize(
    ("case", "sampling"),
    [
        pytest.param(case, sampling, id=f"{case.name}-{'cold' if n == 0 else 'hot'}")
        for at, case in enumerate(CASES)
        for n, sampling in enumerate(({"temperature": 0}, {"temperature": 8.0, "seed": 1}))
        if LONG or at % 2 == n
    ],
)
def test_what_a_model_makes_fits_or_was_cut(
    demo: LoadedModel, case: Case, sampling: dict[str, Any]
) -> None:
    text, reason, ids = _answer(demo, case.schema, **sampling)
    assert not any(demo._interior.engine.model.is_control(id_) for id_ in ids)
    if reason == "stop":
        draft7 = "draft 7" in case.name
        kind = jsonschema.Draft7Validator if draft7 else jsonschema.Draft202012Validator
        kind(case.schema).validate(json.loads(text))
    else:
        assert reason == "length"
        assert len(ids) == 100


@pytest.mark.parametrize(
    "sampling",
    [
        {"mirostat": 2},
        {"xtc_probability": 1.0, "xtc_threshold": 0.01},
        {"typical_p": 0.2, "min_p": 0.1},
        {"dry_multiplier": 5.0, "repeat_penalty": 3.0, "temperature": 0},
        {"samplers": ["temperature", "top_k"], "top_k": 2, "temperature": 2.0},
    ],
    ids=lambda sampling: next(iter(sampling)),
)
def test_every_sampler_goes_with_a_grammar(demo: LoadedModel, sampling: dict[str, Any]) -> None:
    asked = {"type": "array", "items": {"enum": [*WORDS, *OTHERS]}, "minItems": 6, "maxItems": 6}
    text, reason, _ = _answer(demo, asked, seed=1, max_tokens=200, **sampling)
    assert reason == "stop"
    jsonschema.validate(json.loads(text), asked)


def test_most_answers_come_to_their_end(demo: LoadedModel) -> None:
    cases = CASES if LONG else CASES[::3]
    reasons = [_answer(demo, case.schema, temperature=0.7, seed=3)[1] for case in cases]
    assert reasons.count("stop") > len(cases) * 3 // 4


@pytest.mark.parametrize("letters", ["\\u0080-\\uffff", "\\u{800}-\\u{10ffff}", "\\u{f0}-\\u{7ff}"])
def test_characters_made_of_bytes_are_whole(demo: LoadedModel, letters: str) -> None:
    asked = {"type": "string", "pattern": f"^[{letters}]{{20}}$"}
    for seed in range(4):
        text, reason, _ = _answer(demo, asked, temperature=50.0, seed=seed)
        assert reason == "stop"
        jsonschema.validate(json.loads(text), {"minLength": 20, "maxLength": 20})
        assert "\ufffd" not in text


def test_the_same_seed_gives_the_same_answer_also_without_guesses(demo: LoadedModel) -> None:
    engine = Engine(demo._interior.engine.model, draft_costs=None)
    asked = {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 4}
    gbnf = schema.grammar(asked)
    ids = demo.tokenize("Say something.", chat=True)
    for sampling in ({"temperature": 0.0}, {"temperature": 1.5, "seed": 4}):
        params = SamplingParams(max_tokens=80, **sampling)  # type: ignore[arg-type]
        found = []
        for one in (engine, demo._interior.engine, demo._interior.engine):
            request = one.add(one.prepare(ids, params, grammar=gbnf))
            for _ in one.stream(request):
                pass
            found.append(request.tokens)
        assert found[0] == found[1] == found[2]
    engine.close()


def test_answers_side_by_side_follow_their_own_schemas(demo: LoadedModel) -> None:
    engine = Engine(demo._interior.engine.model, n_seqs=3)
    ids = demo.tokenize("Say something.", chat=True)
    params = SamplingParams(temperature=2.0, seed=2, max_tokens=60)
    asked = [{"type": "integer"}, {"enum": WORDS}, {"type": "array", "maxItems": 0}]
    requests = [
        engine.add(engine.prepare(ids, params, grammar=schema.grammar(one))) for one in asked
    ]
    for request, one in zip(requests, asked, strict=True):
        for _ in engine.stream(request):
            pass
        text = demo._interior.engine.model.detokenize(request.tokens[request.n_prompt :])
        jsonschema.validate(json.loads(text), one)
    engine.close()


class _Row:
    """The logits after a prompt, from which tokens can be drawn repeatedly."""

    def __init__(self, model: Model, ids: list[int]) -> None:
        self.model = model
        self.context = Context(model.weights, ContextParams(n_ctx=128))
        batch = Batch(len(ids))
        self.row = batch.add(0, 0, ids, logits=True)
        self.context.decode(batch)
        self.logits = np.array(self.context.logits(self.row))

    def draw(self, params: SamplingParams, gbnf: str) -> int:
        chain = build_chain(params, self.model.weights, 128)
        greedy = params.temperature == 0
        bound = ConstrainedChain(chain, self.model, gbnf, seed=params.seed or 0, greedy=greedy)
        try:
            return bound.sample(self.context, self.row)
        finally:
            bound.close()

    def allowed(self, texts: list[str]) -> list[int]:
        """The tokens that begin one of the texts."""
        pieces = {token: self.model.piece(token) for token in range(self.model.n_vocab)}
        return [
            token
            for token, piece in pieces.items()
            if piece
            and self.model.weights.is_text(token)
            and any(text.encode().startswith(piece) for text in texts)
        ]


@pytest.fixture
def row(demo: LoadedModel) -> Iterator[_Row]:
    row = _Row(
        demo._interior.engine.model, demo.tokenize("What is the capital of France?", chat=True)
    )
    yield row
    row.context.close()


NUMBERS = [1, 12, 20, 3, 47, 5, 66, 7.5, 81, 9]
DRAWS = 3_000 if LONG else 500


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("cut", [{}, {"top_k": 1}, {"top_p": 0.98}, {"top_k": 300}])
def test_draws_have_the_distribution_that_is_promised(
    row: _Row, temperature: float, cut: dict[str, Any]
) -> None:
    gbnf = schema.grammar({"enum": NUMBERS})
    allowed = row.allowed([json.dumps(number) for number in NUMBERS])
    expected = _expected(row.logits, allowed, temperature, cut)
    counts = dict.fromkeys(allowed, 0)
    sampling = {"top_p": 1.0, "temperature": temperature, **cut}
    for seed in range(DRAWS):
        counts[row.draw(SamplingParams(**sampling, seed=seed), gbnf)] += 1
    chi2, dof = 0.0, 0
    rest_expected, rest_counted = 0.0, 0
    for token in allowed:
        share = expected[token] * DRAWS
        if share < 5:
            rest_expected, rest_counted = rest_expected + share, rest_counted + counts[token]
            continue
        chi2, dof = chi2 + (counts[token] - share) ** 2 / share, dof + 1
    assert rest_counted <= rest_expected + 6 * np.sqrt(rest_expected) + 3
    # The chi-square distribution's upper 1e-5 quantile is below this for all degrees of freedom.
    assert chi2 < dof + 6.5 * np.sqrt(2 * dof) + 12


def _expected(
    logits: Any, allowed: list[int], temperature: float, cut: dict[str, Any]
) -> dict[int, float]:
    """The expected distribution: the chain's tokens, without those that the grammar forbids."""

    def kept(tokens: Any) -> dict[int, float]:
        order = tokens[np.argsort(-logits[tokens], kind="stable")]
        order = order[: cut.get("top_k", len(order))]
        plain = _softmax(logits[order])
        n = int(np.searchsorted(np.cumsum(plain), cut.get("top_p", 1.0))) + 1
        order = order[:n]
        return dict(zip(order.tolist(), _softmax(logits[order] / temperature), strict=True))

    free = kept(np.arange(len(logits)))
    found = {token: free.get(token, 0.0) for token in allowed}
    if not sum(found.values()):
        bound = kept(np.array(allowed))
        found = {token: bound.get(token, 0.0) for token in allowed}
    total = sum(found.values())
    return {token: p / total for token, p in found.items()}


def _softmax(logits: Any) -> Any:
    p = np.exp(logits - logits.max())
    return p / p.sum()


def test_temperature_zero_takes_the_most_probable_allowed_token(row: _Row) -> None:
    for words in (WORDS, OTHERS, NUMBERS, [None], [True, False]):
        allowed = row.allowed([json.dumps(word, ensure_ascii=False) for word in words])
        drawn = row.draw(SamplingParams(temperature=0), schema.grammar({"enum": words}))
        assert drawn == max(allowed, key=lambda token: row.logits[token])


def test_a_grammar_that_llama_cpp_cannot_read_is_an_error(demo: LoadedModel) -> None:
    with pytest.raises(NativeError, match="cannot parse the grammar"):
        Grammar(demo._interior.engine.model.weights, "root ::= nothing\n")
