"""Every sampling stage against its published definition, on hand-made logits (sampling_exact)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgesppo
from edgesppo import SamplingParams
from edgesppo.errors import NativeError
from edgesppo.llama import sampler_chain
from edgesppo.llama.sampler_chain import GreedyChain, NucleusChain, build_chain
from edgesppo.sampling.nucleus import nucleus
from edgesppo.sampling.params import STAGES
from edgesppo.sampling.stages import stages
from tests.support.sampling_exact import (
    LARGEST_Z,
    Draws,
    exact,
    random_params,
    softmax,
    z_score,
)
from tests.support.sweeps import LONG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgesppo.llama.sampler_chain import SamplerChain
    from edgesppo.loaded_model import LoadedModel

N_CTX = 512
N_DRAWS = 20_000
N_OF_A_MODEL = N_DRAWS if LONG else 5_000  # draws which take a model or a whole vocabulary
EOS = 1
NOTHING = 1e-30  # a probability that single precision may round to 0
OFF: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0}
LOGITS = [2.0, 1.5, 1.2, 0.7, 0.3, 0.0, -0.4, -1.0, -2.0, -3.0]
RECENT = [3, 0, 1, 2, 3, 0, 1]


@pytest.fixture
def chain(demo: LoadedModel, request: pytest.FixtureRequest) -> Any:
    """Builds chains from parameters and recent tokens; closes them at the end."""

    def build(
        params: SamplingParams, recent: Sequence[int] = (), *, is_alone: bool = True
    ) -> SamplerChain | NucleusChain:
        weights = demo._interior.engine.model.weights
        made = build_chain(params, weights, N_CTX, is_alone=is_alone)
        request.addfinalizer(made.close)
        made.recall(recent)
        return made

    return build


def _breakers(demo: LoadedModel, *texts: bytes) -> set[int]:
    pieces = [
        (token, demo._interior.engine.model.piece(token))
        for token in range(demo._interior.engine.model.n_vocab)
    ]
    return {token for token, piece in pieces if any(text in piece for text in texts)}


def _assert_same(found: np.ndarray, expected: np.ndarray, why: object, *, astray: int = 0) -> None:
    """Equal, except for `astray` tokens that single precision puts beyond a threshold."""
    wrong = (found > 0) != (expected > 0)
    wrong &= np.maximum(found, expected) > NOTHING
    assert wrong.sum() <= astray, f"cuts {np.flatnonzero(wrong)} otherwise: {why}"
    assert np.abs(found - expected).max() < (1e-3 if astray else 1e-4), why


@pytest.mark.parametrize(
    "on",
    [
        {"top_k": 4},
        {"top_p": 0.6},
        {"min_p": 0.2},
        {"typical_p": 0.5},
        {"xtc_probability": 1.0, "xtc_threshold": 0.1},
        {"repeat_penalty": 1.4},
        {"repeat_penalty": 1.4, "repeat_last_n": 2},
        {"presence_penalty": 0.8},
        {"frequency_penalty": -0.3},
        {"dry_multiplier": 0.8},
        {"dry_multiplier": 0.8, "dry_penalty_last_n": 6},
        {"dry_multiplier": 0.8, "dry_sequence_breakers": ()},
        {"temperature": 0.5},
        {"temperature": 0},
        {"temperature": 0, "logit_bias": {0: -5}, "presence_penalty": 2.0},
        {"temperature": 0, "dry_multiplier": 5.0, "top_k": 3, "xtc_probability": 1.0},
        {"logit_bias": {0: -100, 9: 4.5}},
    ],
    ids=str,
)
def test_a_stage_alone_does_what_its_definition_says(chain: Any, on: dict[str, Any]) -> None:
    params = SamplingParams(**{**OFF, **on})
    draws = Draws(chain(params, RECENT), LOGITS)
    expected = exact(params, LOGITS, RECENT)
    if params.temperature == 0:
        assert draws.one() == expected.argmax()
    else:
        _assert_same(draws.distribution(), expected, on)
    assert not np.allclose(expected, softmax(np.array(LOGITS))), "the case shows nothing"


@pytest.mark.parametrize(
    "off",
    [
        {"xtc_probability": 1.0, "xtc_threshold": 0.3},
        {"xtc_probability": 1.0, "xtc_threshold": 0.9},
        {"repeat_penalty": 1.4, "repeat_last_n": 0},
        {"dry_multiplier": 0.8, "dry_allowed_length": 4},
        {"dry_multiplier": 0.8, "dry_penalty_last_n": 0},
    ],
    ids=str,
)
def test_a_stage_with_nothing_to_do_changes_nothing(chain: Any, off: dict[str, Any]) -> None:
    draws = Draws(chain(SamplingParams(**{**OFF, **off}), RECENT), LOGITS)
    _assert_same(draws.distribution(), softmax(np.array(LOGITS)), off)


@pytest.fixture(params=["llama.cpp's top-p", "our top-p"])
def any_top_p(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has every chain take llama.cpp's stage for top-p, or every chain that can take ours."""
    least = 0 if request.param == "our top-p" else 1 << 30
    monkeypatch.setattr(sampler_chain, "_LARGE_VOCABULARY", least)


@pytest.mark.usefixtures("any_top_p")
@pytest.mark.parametrize("n", [64, 2500])
def test_any_stages_in_any_order_do_what_their_definitions_say(
    chain: Any, demo: LoadedModel, n: int
) -> None:
    rng = np.random.default_rng(n)
    breakers = _breakers(demo, b"\n", b":", b'"', b"*")
    beginning = [min(breakers), *range(8)]
    for case in range(750 if n < 1000 else 75):
        params = random_params(rng, greedy=case % 5 == 0)
        logits = rng.normal(0, 3, n).astype(np.float32)
        recent = rng.choice(beginning, int(rng.integers(0, 50))).tolist()
        draws = Draws(chain(params, recent), logits.tolist())
        expected = exact(params, logits.tolist(), recent, breakers)
        if params.temperature == 0:
            assert draws.one() == expected.argmax(), params
        else:
            _assert_same(draws.distribution(), expected, params, astray=int(n > 1000))


def test_the_order_of_the_stages_matters_and_is_the_one_that_was_set(chain: Any) -> None:
    narrow = {"top_p": 0.6, "temperature": 2.0}
    found = []
    for order in (("top_p", "temperature"), ("temperature", "top_p")):
        params = SamplingParams(**narrow, samplers=order)
        found.append(Draws(chain(params), LOGITS).distribution())
        _assert_same(found[-1], exact(params, LOGITS), order)
    assert (found[0] > 0).sum() < (found[1] > 0).sum()


def test_the_default_order_is_the_documented_one(demo: LoadedModel) -> None:
    assert SamplingParams().samplers == STAGES
    cuts = {"top_k": 5, "typical_p": 0.5, "min_p": 0.1, "xtc_probability": 0.5}
    shifts = {"presence_penalty": 1.0, "dry_multiplier": 1.0, "logit_bias": {1: 1}}
    on = SamplingParams(**cuts, **shifts)
    names = [stage.name for stage in stages(on, demo._interior.engine.model.weights, N_CTX)]
    assert list(dict.fromkeys(names)) == ["logit_bias", *STAGES, "draw"]


def test_a_stage_that_is_not_named_is_off(chain: Any) -> None:
    params = SamplingParams(top_k=1, temperature=0.1, samplers=())
    _assert_same(Draws(chain(params), LOGITS).distribution(), softmax(np.array(LOGITS)), "none")


def test_impossible_tokens_do_not_disturb_the_typical_ones(chain: Any) -> None:
    params = SamplingParams(**{**OFF, "typical_p": 0.5})
    logits = [*LOGITS, -300.0, float("-inf")]
    _assert_same(Draws(chain(params), logits).distribution(), exact(params, logits), "-inf")


def test_the_least_temperature_still_finds_the_best_tokens(chain: Any) -> None:
    logits = np.random.default_rng(3).normal(0, 10, 2500)
    coldest = {"temperature": 1e-4, "samplers": ("temperature", "top_k", "top_p")}
    params = SamplingParams(**coldest, top_k=200, logit_bias={9: 100})
    assert set(Draws(chain(params), logits.tolist()).counts(20).nonzero()[0]) == {9}


@pytest.mark.usefixtures("any_top_p")
def test_top_p_keeps_what_it_has_to(chain: Any) -> None:
    for top_p in (0.0, 1e-7, 0.4, 0.999999):
        params = SamplingParams(**{**OFF, "top_p": top_p})
        for logits in (LOGITS, [*LOGITS, float("-inf")], [3.0] * 50, [40.0, *[-40.0] * 9]):
            found = (Draws(chain(params), logits).distribution() > 0).sum()
            assert found == max(1, (exact(params, logits) > 0).sum()), (top_p, logits)


def test_a_large_vocabulary_takes_our_top_p_where_it_is_the_first_cut(
    chain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler_chain, "_LARGE_VOCABULARY", 2500)
    for on, ours in (
        ({}, True),
        ({"repeat_penalty": 1.1, "logit_bias": {1: 1}, "min_p": 0.1}, True),
        ({"top_k": 40}, False),
        ({"top_p": 1.0}, False),
        ({"temperature": 0}, False),
        ({"temperature": 0, "repeat_penalty": 1.1}, False),
        ({"mirostat": 2}, False),
    ):
        params = SamplingParams(**{"top_p": 0.9, **on})  # type: ignore[arg-type]
        for is_alone in (True, False):
            made = chain(params, is_alone=is_alone)
            assert isinstance(made, NucleusChain) == ours, on
            greedy = not is_alone and on == {"temperature": 0}
            assert isinstance(made, GreedyChain) == greedy, on


@pytest.mark.parametrize(
    "on",
    [
        {},
        {"temperature": 0.8, "top_k": 8, "top_p": 0.9, "min_p": 0.05},
        {"temperature": 1.5, "typical_p": 0.8},
        {"temperature": 1.0, "top_p": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.1},
        {"temperature": 1.0, "repeat_penalty": 1.3, "presence_penalty": 0.5, "top_p": 1.0},
        {"dry_multiplier": 0.8, "frequency_penalty": 0.2, "top_p": 0.95, "temperature": 1.2},
        {"logit_bias": {0: -2, 8: 3}, "samplers": ("temperature", "min_p"), "min_p": 0.1},
    ],
    ids=str,
)
def test_twenty_thousand_draws_have_the_exact_distribution(chain: Any, on: dict[str, Any]) -> None:
    params = SamplingParams(**on, seed=2024)
    counts = Draws(chain(params, RECENT), LOGITS).counts(N_DRAWS)
    expected = exact(params, LOGITS, RECENT)
    assert (expected > 0).sum() > 2
    assert z_score(counts, expected) < LARGEST_Z, counts
    other = np.roll(expected, 1)
    assert z_score(counts, other) > LARGEST_Z, "the test cannot tell another distribution"


def test_what_xtc_does_tells_nothing_of_any_other_draw(chain: Any) -> None:
    params = SamplingParams(**{**OFF, "xtc_probability": 0.5, "xtc_threshold": 0.2}, seed=7)
    draws, n = Draws(chain(params), LOGITS), len(LOGITS)
    drawn = np.array([draws.one() for _ in range(2 * N_DRAWS)])
    expected = np.outer(exact(params, LOGITS), exact(params, LOGITS)).ravel()
    first = np.arange(1, N_DRAWS - 1)
    for second in (first + 1, 2 * first, 2 * first + 1, 2 * first + 2):
        pairs = np.bincount(drawn[first] * n + drawn[second], minlength=n * n)
        assert z_score(pairs, expected) < LARGEST_Z


def test_mirostat_keeps_what_surprises_less_than_mu_and_mu_learns(chain: Any) -> None:
    learning = {"mirostat": 2, "mirostat_tau": 2.0, "mirostat_eta": 0.3}
    params = SamplingParams(**learning, temperature=0.9, top_k=1, seed=3)
    draws = Draws(chain(params), LOGITS)
    mu, sizes = 2 * params.mirostat_tau, set()
    whole = softmax(np.array(LOGITS) / params.temperature)
    for _ in range(300):
        kept = -np.log2(whole) <= mu
        kept[0] = True
        expected = np.where(kept, whole, 0) / whole[kept].sum()
        token, found = draws.one_with_distribution()
        _assert_same(found, expected, mu)
        mu -= params.mirostat_eta * (-np.log2(expected[token]) - params.mirostat_tau)
        sizes.add(int(kept.sum()))
    assert len(sizes) > 3, "mu hardly moved"


def test_mirostat_draws_with_the_exact_distribution(chain: Any) -> None:
    still = {"mirostat": 2, "mirostat_tau": 1.5, "mirostat_eta": 0.0}
    params = SamplingParams(**still, temperature=1.0, seed=3)
    expected = softmax(np.where(-np.log2(softmax(np.array(LOGITS))) <= 3.0, LOGITS, -np.inf))
    counts = Draws(chain(params), LOGITS).counts(N_DRAWS)
    assert z_score(counts, expected) < LARGEST_Z


def test_no_repetition_reaches_across_a_breaker(chain: Any, demo: LoadedModel) -> None:
    line_feed = demo.tokenize("a\nb")[1]
    assert b"\n" in demo._interior.engine.model.piece(line_feed)
    recent = [5, line_feed, 6, 9, 5, line_feed]
    for texts, breakers in ((("\n",), {line_feed}), (("x\n",), set()), ((), set())):
        on = {"dry_multiplier": 1.0, "dry_sequence_breakers": texts}
        params = SamplingParams(**OFF, **on)
        found = Draws(chain(params, recent), LOGITS).distribution()
        _assert_same(found, exact(params, LOGITS, recent, breakers), params)
        assert np.allclose(found, softmax(np.array(LOGITS))) == bool(breakers)


@pytest.mark.parametrize(
    "breakers", [("é",), ("\U0001f600",), ("<end_of_turn>",), ("\n\n", "ab" * 10)]
)
def test_any_text_can_be_a_breaker(demo: LoadedModel, breakers: tuple[str, ...]) -> None:
    on = {"dry_multiplier": 1.0, "dry_sequence_breakers": breakers}
    assert demo.ask("What is 2 plus 2?", temperature=0, max_tokens=4, **on)


def test_breakers_are_looked_up_once_and_answers_share_no_repetitions(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    new_dry = sampler_chain._MAKERS["new_dry"]
    monkeypatch.setitem(
        sampler_chain._MAKERS, "new_dry", lambda *args: made.append(args) or new_dry(*args)
    )
    asked: Any = {"temperature": 0, "dry_multiplier": 9.0, "dry_sequence_breakers": ("zq",)}
    answers = {demo.ask("Say a a a a a a a a", max_tokens=30, **asked) for _ in range(3)}
    assert (len(answers), len(made)) == (1, 1)


@pytest.mark.parametrize("parameter", ["logit_bias", "stop_tokens"])
def test_a_token_the_vocabulary_lacks_is_refused_by_name(demo: LoadedModel, parameter: str) -> None:
    n = demo._interior.engine.model.n_vocab
    value = {n: 1.0} if parameter == "logit_bias" else [n]
    with pytest.raises(edgesppo.UsageError, match=f"{parameter}.* has token {n}, .* below {n}"):
        demo.ask("x", **{parameter: value})


def test_a_bias_of_minus_a_hundred_bans_a_token(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("What is the capital of France?")
    banned = chat.last.ids[0]
    chat.clear()
    chat.ask("What is the capital of France?", logit_bias={banned: -100})
    assert banned not in chat.last.ids


def test_a_stop_token_ends_the_answer_and_is_not_given_out(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    whole = chat.ask("What is the capital of France?")
    stop, before = chat.last.ids[3], chat.last.ids[:3]
    chat.clear()
    text = chat.ask("What is the capital of France?", stop_tokens=(stop,))
    assert chat.last.ids == before
    assert chat.last.finish_reason == "stop"
    assert whole.startswith(text)


def test_penalties_look_back_at_the_prompt(demo: LoadedModel) -> None:
    asked = "What is the capital of France?"
    prompt = set(demo.tokenize(asked, chat=True))
    chat = demo.chat(temperature=0, max_tokens=8)
    chat.ask(asked)
    assert prompt & set(chat.last.ids)
    chat.clear()
    chat.ask(asked, repeat_penalty=100.0, repeat_last_n=512)
    assert not prompt & set(chat.last.ids)


@pytest.mark.parametrize("best", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_end_the_answer_with_a_reason(best: float) -> None:
    logits = np.full(50, best, np.float32)
    with pytest.raises(NativeError, match="no probabilities"):
        nucleus(logits, 0.9)
