"""Sampling parameters are checked, and the answers follow them."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo import SamplingParams
from edgesppo.sampling.params import MAX_SEED

if TYPE_CHECKING:
    from edgesppo.loaded_model import LoadedModel

QUESTION = "Tell me something."
HOT = {"temperature": 3.0, "top_p": 1.0, "max_tokens": 12}


def _named(name: str, problem: str) -> str:
    """A pattern for the parameter's name, its option where that differs, and the problem."""
    return rf"{name}( \(--.*?\))? {re.escape(problem)}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "0.7"),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("min_p", -math.inf),
        ("repeat_penalty", 0),
        ("repeat_last_n", -1),
        ("seed", -1),
        ("seed", 2**32),
        ("max_tokens", 0),
        ("temperature", 1e-5),
        ("typical_p", 1.1),
        ("typical_p", None),
        ("presence_penalty", math.nan),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -math.inf),
        ("dry_multiplier", -1),
        ("dry_base", 0.9),
        ("dry_allowed_length", 0),
        ("dry_penalty_last_n", -2),
        ("xtc_probability", 1.5),
        ("xtc_threshold", True),
        ("mirostat", 1),
        ("mirostat", 2.0),
        ("mirostat", False),
        ("mirostat_tau", math.inf),
        ("mirostat_eta", "0.1"),
        ("logprobs", 21),
        ("logprobs", True),
        ("samplers", "top_k"),
        ("stop_tokens", 107),
        ("stop_tokens", "107"),
        ("logit_bias", 3),
        ("logit_bias", "3=1"),
        ("logit_bias", [3]),
        ("dry_sequence_breakers", 3),
    ],
)
def test_a_invalid_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(edgesppo.UsageError, match=_named(name, f"is {value!r}, expected")):
        SamplingParams(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "culprit"),
    [
        ("samplers", ("top_k", "top_q"), "'top_q'"),
        ("samplers", ("top_k", "dry", "top_k"), "'top_k' more than once"),
        ("samplers", (["top_k"],), "['top_k']"),
        ("stop_tokens", (3, -1), "-1"),
        ("stop_tokens", (True,), "True"),
        ("stop_tokens", ("3",), "'3'"),
        ("logit_bias", {"3": 1}, "'3'"),
        ("logit_bias", {3.0: 1}, "3.0"),
        ("logit_bias", [(3, 1), (3, 2)], "a token more than once"),
        ("dry_sequence_breakers", ("\n", ""), "''"),
        ("dry_sequence_breakers", ("a\0b",), "'a\\x00b'"),
        ("dry_sequence_breakers", ("x" * 21,), f"'{'x' * 21}'"),
        ("dry_sequence_breakers", ("\ud800",), "a lone surrogate, U+D800"),
        ("dry_sequence_breakers", ("x",) * 33, "33 strings"),
    ],
)
def test_a_invalid_part_is_refused_by_name(name: str, value: Any, culprit: str) -> None:
    with pytest.raises(edgesppo.UsageError, match=_named(name, f"has {culprit}")):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("bias", [math.nan, math.inf, 101, "1", True, None])
def test_a_invalid_bias_is_refused_by_its_token(bias: Any) -> None:
    with pytest.raises(
        edgesppo.UsageError, match=_named("logit_bias", f"has {bias!r} for token 7")
    ):
        SamplingParams(logit_bias={7: bias})  # type: ignore[arg-type]


def test_a_bias_is_given_as_a_mapping_and_stored_as_pairs() -> None:
    params = SamplingParams(logit_bias={9: 1, 3: -2.5})  # type: ignore[arg-type]
    assert params.logit_bias == ((3, -2.5), (9, 1.0))
    assert params.replace(seed=1).logit_bias == params.logit_bias
    assert len({params, params.replace(seed=1), params.replace(seed=1)}) == 2


@pytest.mark.parametrize("stop", [("",), (None,), ("a", 3)])
def test_a_invalid_stop_string_is_refused(stop: Any) -> None:
    with pytest.raises(edgesppo.UsageError, match="stop has"):
        SamplingParams(stop=stop)


def test_stop_may_be_a_single_string() -> None:
    assert SamplingParams(stop="END").stop == ("END",)  # type: ignore[arg-type]


def test_an_unknown_parameter_is_refused_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(
        edgesppo.UsageError,
        match=r"no sampling parameter is called 'colour'; there are .*top_p",
    ):
        SamplingParams().replace(colour=1)


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(demo: LoadedModel) -> None:
    answers = [demo.ask(QUESTION, seed=seed, **HOT) for seed in (0, 0, 1, 2, 3)]
    assert answers[0] == answers[1]
    assert len(set(answers)) > 2


def test_without_a_seed_answers_differ_and_the_seed_drawn_repeats_them(demo: LoadedModel) -> None:
    chat = demo.chat(**HOT)
    texts = set()
    for _ in range(4):
        chat.clear()
        texts.add(chat.ask(QUESTION))
    assert len(texts) > 1
    assert demo.ask(QUESTION, seed=chat.last.seed, **HOT) == chat.last.text


def test_temperature_zero_ignores_the_seed(demo: LoadedModel) -> None:
    answers = {demo.ask(QUESTION, temperature=0, seed=seed) for seed in range(3)}
    assert len(answers) == 1


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_narrowing_to_one_token_equals_greedy(demo: LoadedModel, narrow: dict[str, Any]) -> None:
    greedy = demo.ask(QUESTION, temperature=0)
    assert demo.ask(QUESTION, temperature=1.0, seed=5, **narrow) == greedy


def test_a_strong_repeat_penalty_avoids_what_was_said(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0, max_tokens=24)
    chat.ask("What is 2 plus 2?")
    plain = chat.last.ids
    chat.clear()
    chat.ask("What is 2 plus 2?", repeat_penalty=50.0, repeat_last_n=512)
    penalised = chat.last.ids
    assert len(set(penalised)) == len(penalised), "a token came twice under a penalty of 50"
    assert penalised != plain


def test_seeds_of_more_answers_differ_also_near_the_largest() -> None:
    params = SamplingParams(seed=MAX_SEED - 1)
    found = [params.with_seed_after(n).seed for n in range(5)]
    assert found == [MAX_SEED - 1, MAX_SEED, 0, 1, 2]
    assert SamplingParams().with_seed_after(1).seed is None
