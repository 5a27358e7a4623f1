"""Every parameter that a caller can set refuses invalid values with its name."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from typing import TYPE_CHECKING, Any

import pytest

import edgesppo
from edgesppo import Message, SamplingParams
from edgesppo.engine.engine import Engine
from edgesppo.sampling.fields import Number, Strings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

NAN, INF = math.nan, math.inf
# Not valid for any numeric parameter, whatever its range.
NEVER_A_NUMBER = [NAN, INF, -INF, True, False, "1", "", b"1", [1], {}, 10**400, -(10**400), 1j]
NEVER_WHOLE = [*NEVER_A_NUMBER, 0.5, 1e300]
NEVER_A_WORD = ["", "none", "F16", 0, 1, 1.5, NAN, True, None, b"f16", ["f16"]]
# None means that these are chosen automatically.
CHOSEN = ("n_ctx", "n_threads", "n_threads_batch", "plain_from", "seed")
SURROGATE = "a lone \ud800 surrogate"


def _refusing(name: str) -> Any:
    """A UsageError of one line that names the parameter first."""
    return pytest.raises(edgesppo.UsageError, match=rf"\A{name}\b( \(--\S+\))? (is|has) .+\Z")


def _invalid_sampling() -> list[tuple[str, Any]]:
    """Invalid values for every field of SamplingParams, new ones included."""
    found: list[tuple[str, Any]] = []
    for field in dataclasses.fields(SamplingParams):
        kind = field.metadata["kind"]
        values: list[Any] = [0.5, NAN, True, {1: NAN}, "a lone " + SURROGATE]
        if isinstance(kind, Number):
            outside = [kind.low - 1, kind.high * 2 + 1]
            values = [*(NEVER_WHOLE if kind.number is int else NEVER_A_NUMBER), *outside]
        elif isinstance(kind, Strings):
            values = [0, NAN, True, None, [""], ("a", 3), [SURROGATE]]
        found += [(field.name, value) for value in values]
        found += [] if field.default is None else [(field.name, None)]
    return found


@pytest.mark.parametrize(("name", "value"), _invalid_sampling())
def test_sampling_parameters(demo: LoadedModel, name: str, value: Any) -> None:
    chat = demo.chat()
    ways: list[Callable[[], object]] = [
        lambda: SamplingParams(**{name: value}),
        lambda: demo.chat(**{name: value}),
        lambda: demo.ask("Hi", **{name: value}),
        lambda: chat.ask("Hi", **{name: value}),
    ]
    for way in ways:
        with _refusing(name):
            way()
    assert chat.messages == []


def _invalid_settings() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    parameters = inspect.signature(Engine.__init__).parameters
    for name in list(parameters)[2:]:  # behind self and the model
        values = NEVER_A_WORD if name in ("cache_type", "flash_attention") else NEVER_WHOLE
        if name == "pace":  # an object of ours, which no user gives
            continue
        if name == "draft_costs":
            values = [1, "abcd", (1.0, 2.0), (NAN,) * 4, (0.5, 1, 1, 1), (1, 1, 1, "2"), True]
        if name.startswith("n_"):
            values = [*values, 0, -1, 2**31]
        found += [(name, value) for value in values if value is not None or name not in CHOSEN]
    return found


@pytest.mark.parametrize(("name", "value"), _invalid_settings())
def test_engine_settings(demo: LoadedModel, name: str, value: Any) -> None:
    with _refusing(name):
        Engine(demo._interior.engine.model, **{name: value})


LOADING: dict[str, list[Any]] = {
    "model": [0, NAN, None, True, b"demo", ["demo"]],
    "n_ctx": [*NEVER_WHOLE, 0, 15, 513, -1],
    "n_threads": [*NEVER_WHOLE, 0, 1025],
    "n_seqs": [*NEVER_WHOLE, None, 0, 65],
    "gpu": [NAN, INF, -1, 10**9, True, None, "on", "3", 1.5, b"off"],
    "cache_type": NEVER_A_WORD,
    "tune": NEVER_A_WORD,
    "drafts": [None, 0, 1, "", NAN],
    "force": [None, 0, 1, "yes", NAN],
    "on_load": [0, "print", True, NAN],
    "on_convert": [0, "print", True, NAN],
    "on_tune": [0, "print", True, NAN],
}


def test_every_parameter_of_load_is_tested_here() -> None:
    assert set(LOADING) == set(inspect.signature(edgesppo.load).parameters)


@pytest.mark.parametrize("name", LOADING)
def test_loading_parameters(demo_gguf: Path, name: str) -> None:
    for value in LOADING[name]:
        options = {"model": demo_gguf, name: value}
        with _refusing(name):
            edgesppo.load(**options)


@pytest.mark.parametrize("name", ["", "\0", "a\0b", SURROGATE, "x" * 10_000, "demo\n", "~none/x"])
def test_invalid_model_names(name: str) -> None:
    with pytest.raises(edgesppo.EdgesppoError) as caught:
        edgesppo.load(name)
    assert isinstance(caught.value, edgesppo.ModelNotFound | edgesppo.BadModelFile | ValueError)
    assert "\n" not in str(caught.value)
    str(caught.value).encode("utf-8", "backslashreplace")


@pytest.mark.parametrize("value", [0, NAN, True, b"Be brief.", ["Be brief."], SURROGATE])
def test_the_system_text(demo: LoadedModel, value: Any) -> None:
    with _refusing("system"):
        demo.chat(system=value)


@pytest.mark.parametrize("value", [0, NAN, True, None, "cut", "", b"trim", ["trim"]])
def test_overflow_policies(demo: LoadedModel, value: Any) -> None:
    with _refusing("overflow"):
        demo.chat(overflow=value)


def test_a_chat_has_no_other_parameter(demo: LoadedModel) -> None:
    own = set(inspect.signature(type(demo).chat).parameters)
    assert own == {"self", "messages", "system", "overflow", "sampling"}
    with pytest.raises(edgesppo.UsageError, match="no sampling parameter is called 'n_ctx'"):
        demo.chat(n_ctx=5)


@pytest.mark.parametrize("text", [SURROGATE, 0, NAN, None, True, b"Hi", ["Hi"]])
def test_a_message_that_is_not_a_string(demo: LoadedModel, text: Any) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("My name is Ada.")
    before = list(chat.messages)
    with pytest.raises(edgesppo.UsageError, match=r"\Athe message (is|has) .+\Z"):
        chat.ask(text)
    assert chat.messages == before
    assert "Ada" in chat.ask("What is my name?")


def test_a_lone_surrogate_is_reported_with_its_position(demo: LoadedModel) -> None:
    with pytest.raises(edgesppo.UsageError, match=r"U\+D800, at position 7; "):
        demo.ask(SURROGATE)


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\0", "a\0b", "\x1b[2J", "\ufeff", "\u2581"])
def test_odd_but_valid_texts_are_answered(demo: LoadedModel, text: str) -> None:
    chat = demo.chat(temperature=0, system=text, max_tokens=4)
    chat.ask(text)
    chat.ask(text)
    assert [message.content for message in chat.messages[::2]] == [text, text]
    assert chat.last.usage.completion_tokens > 0


@pytest.mark.parametrize("token", [-1, 2**31, 2**70, 1.5, NAN, True, "1", None])
def test_invalid_tokens(demo: LoadedModel, token: Any) -> None:
    with pytest.raises(edgesppo.UsageError, match="a token of the prompt is "):
        demo._interior.engine.add(demo._interior.engine.prepare([2, token], SamplingParams()))


def test_errors_name_the_command_line_option() -> None:
    found = [
        re.escape("top_p (--top-p) is 2, expected a number from 0 to 1"),
        re.escape("temperature is -1, expected 0 or a number from 0.0001 to 100"),
    ]
    for pattern, sampling in zip(found, [{"top_p": 2}, {"temperature": -1}], strict=True):
        with pytest.raises(edgesppo.UsageError, match=pattern):
            SamplingParams(**sampling)  # type: ignore[arg-type]


def test_a_role_out_of_turn_is_refused_by_number(demo: LoadedModel) -> None:
    chat = demo.chat()
    chat.messages = [Message("user", "Hi"), Message("tool", "x")]
    with pytest.raises(edgesppo.UsageError, match="message 2 has the role 'tool'"):
        chat.ask("Hi")
