"""Sampling parameters as keyword arguments: names, types, and numbers of NumPy."""

from __future__ import annotations

import dataclasses
import fractions
import typing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import edgesppo
from edgesppo import SamplingParams
from edgesppo.sampling import options
from edgesppo.sampling.options import SamplingOptions

if TYPE_CHECKING:
    from edgesppo.loaded_model import LoadedModel

# What a field of SamplingParams holds -> what may be given for it.
GIVEN = {
    float: options.Number,
    int: options.Integer,
    int | None: options.Integer | None,
}
# These take more than one form, or less than their type tells.
OWN = {"mirostat", "logit_bias", "samplers", "stop", "stop_tokens", "dry_sequence_breakers"}


def test_the_options_are_the_fields_of_sampling_params_with_their_types() -> None:
    fields = typing.get_type_hints(SamplingParams)
    given = typing.get_type_hints(SamplingOptions)
    assert list(given) == [field.name for field in dataclasses.fields(SamplingParams)]
    assert not SamplingOptions.__required_keys__
    for name in given.keys() - OWN:
        assert given[name] == GIVEN[fields[name]], name


def test_choices_are_the_values_that_the_fields_accept() -> None:
    given = typing.get_type_hints(SamplingOptions)
    kinds = {field.name: field.metadata["kind"] for field in dataclasses.fields(SamplingParams)}
    assert typing.get_args(given["mirostat"]) == kinds["mirostat"].known
    (stage,) = typing.get_args(given["samplers"])
    assert typing.get_args(stage) == kinds["samplers"].known


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("temprature", "temperature"),
        ("Temperature", "temperature"),
        ("temp", "temperature"),
        ("topk", "top_k"),
        ("max_new_tokens", "max_tokens"),
        ("repetition_penalty", "repeat_penalty"),
        ("sampler", "samplers"),
    ],
)
def test_a_mistyped_parameter_is_refused_with_the_one_that_was_meant(
    demo: LoadedModel, name: str, meant: str
) -> None:
    wrong: dict[str, Any] = {name: 1}
    chat = demo.chat()
    refused = rf"\Ano sampling parameter is called '{name}' \(did you mean {meant}\?\)\Z"
    for call in (
        lambda: SamplingParams().replace(**wrong),
        lambda: demo.chat(**wrong),
        lambda: demo.ask("Hi", **wrong),
        lambda: chat.ask("Hi", **wrong),
        lambda: next(chat.stream("Hi", **wrong)),
    ):
        with pytest.raises(edgesppo.UsageError, match=refused):
            call()


@pytest.mark.parametrize(("name", "taken_by"), [("system", "model.chat"), ("n_ctx", "load")])
def test_an_argument_of_another_call_is_refused_with_that_call(
    demo: LoadedModel, name: str, taken_by: str
) -> None:
    wrong: dict[str, Any] = {name: 1}
    with pytest.raises(edgesppo.UsageError, match=rf"'{name}' \({taken_by}\(\) takes it\)"):
        demo.chat().ask("Hi", **wrong)


def test_a_mistyped_stage_is_refused_with_the_one_that_was_meant() -> None:
    stages: Any = ["top_k", "temprature"]
    with pytest.raises(edgesppo.UsageError, match=r"'temprature' \(did you mean temperature\?\)"):
        SamplingParams(samplers=stages)


def test_every_numeric_parameter_takes_numpy_numbers() -> None:
    for field in dataclasses.fields(SamplingParams):
        value = 1 if field.default is None else field.default
        if not isinstance(value, int | float):
            continue
        kinds = [np.float64, np.longdouble] if isinstance(value, float) else [np.int64, np.uint32]
        for kind in [*kinds, np.array]:
            if kind is np.uint32 and value < 0:
                continue
            given: dict[str, Any] = {field.name: kind(value)}
            held = getattr(SamplingParams(**given), field.name)
            assert held == pytest.approx(value)
            assert type(held) is type(value), (field.name, kind)


def test_other_real_numbers_and_arrays_of_tokens_are_taken() -> None:
    bias: Any = {np.int32(5): np.float32(0.5)}
    tokens: Any = np.array([5, 6])
    ids: Any = {7}
    half: Any = fractions.Fraction(1, 2)
    params = SamplingParams(temperature=half, logit_bias=bias, stop_tokens=tokens)
    assert (params.temperature, params.logit_bias) == (0.5, ((5, 0.5),))
    assert params.stop_tokens == (5, 6)
    assert all(type(token) is int for token in params.stop_tokens)
    assert SamplingParams(stop_tokens=ids).stop_tokens == (7,)


@pytest.mark.parametrize(
    "value",
    [np.bool_(True), np.float64("nan"), np.array([0.5]), np.array("1"), np.complex64(1)],
)
def test_what_is_no_number_in_numpy_is_none_here(value: Any) -> None:
    with pytest.raises(edgesppo.UsageError, match="temperature is "):
        SamplingParams(temperature=value)


def test_a_float_of_numpy_is_no_whole_number() -> None:
    value: Any = np.float64(3)
    with pytest.raises(edgesppo.UsageError, match=r"top_k.* is .*3.0.*, expected a whole number"):
        SamplingParams(top_k=value)


def test_the_repr_of_parameters_shows_what_differs_from_the_defaults() -> None:
    assert repr(SamplingParams()) == "SamplingParams()"
    assert repr(SamplingParams(temperature=0, seed=3)) == "SamplingParams(temperature=0, seed=3)"
