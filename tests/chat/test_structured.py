"""Answers that follow a schema, from Python and on the command line."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import subprocess
import sys
from collections.abc import Callable  # noqa: TC003 - pydantic looks it up
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import pytest
from click.testing import CliRunner, Result
from typing_extensions import TypedDict

import edgesppo
from edgesppo.chat import structured
from edgesppo.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel

CITY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "people": {"type": "integer", "minimum": 0, "maximum": 99_999_999},
    },
    "required": ["name", "people"],
    "additionalProperties": False,
}


class Kind(str, enum.Enum):
    TOWN = "town"
    VILLAGE = "village"


class Mayor(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=8)
    deputy: Mayor | None = None


class Place(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12, description="As on the map")
    kind: Kind
    people: int = pydantic.Field(ge=0, lt=10_000)
    height: float | None = pydantic.Field(ge=-400, le=9_000)
    mayors: list[Mayor] = pydantic.Field(max_length=2)


def test_ask_with_a_schema_returns_the_value(demo: LoadedModel) -> None:
    city = demo.ask("Tell me about Paris.", schema=CITY, seed=1)
    assert city.keys() == {"name", "people"}
    assert isinstance(city["people"], int)
    assert len(city["name"]) <= 12


def test_ask_with_a_pydantic_class_returns_an_instance(demo: LoadedModel) -> None:
    places = [demo.ask("Some place?", schema=Place, seed=seed, max_tokens=400) for seed in range(3)]
    assert all(type(place) is Place for place in places)
    assert len({place.name for place in places}) > 1


def test_ask_with_another_schema_each_turn_goes_on_with_the_chat(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    assert chat.ask("Is it?", schema={"type": "boolean"}) in (True, False)
    assert chat.ask("How many?", schema={"enum": [1, 2, 3]}) in (1, 2, 3)
    assert isinstance(chat.ask("What is the capital of France?"), str)
    assert [message.role for message in chat.messages] == ["user", "assistant"] * 3
    assert json.loads(chat.messages[1].content) in (True, False)
    assert chat.last.usage.cached_tokens > 0


def test_a_stream_may_be_bound_too(demo: LoadedModel) -> None:
    chat = demo.chat(seed=3)
    text = "".join(chunk.text for chunk in chat.stream("A city?", schema=CITY))
    assert json.loads(text).keys() == {"name", "people"}
    assert chat.last.finish_reason == "stop"
    again = "".join(chunk.text for chunk in chat.regenerate(schema={"const": [1, {}]}))
    assert again == "[1,{}]"


def test_an_answer_that_was_cut_is_an_error_that_holds_its_text(demo: LoadedModel) -> None:
    chat = demo.chat(seed=1)
    with pytest.raises(edgesppo.IncompleteAnswer, match="length after 5 tokens") as cut:
        chat.ask("A city?", schema=CITY, max_tokens=5)
    assert cut.value.text == chat.last.text
    assert cut.value.text.startswith('{"na')
    assert cut.value.finish_reason == "length"


def test_an_answer_that_fills_the_context_is_cut_too(demo_gguf: Path) -> None:
    with (
        edgesppo.load(demo_gguf, n_ctx=48) as model,
        pytest.raises(edgesppo.IncompleteAnswer, match="length"),
    ):
        model.ask("Numbers?", schema={"type": "array", "items": {"const": 11}, "minItems": 99})


def test_a_cancelled_answer_says_so(demo: LoadedModel) -> None:
    chat = demo.chat(seed=1)
    stream = chat.stream("A city?", schema=CITY)
    while not next(stream).text:
        pass
    stream.close()  # type: ignore[attr-defined]
    assert chat.last.finish_reason == "cancelled"
    assert chat.ask("Is it?", schema={"type": "null"}) is None


def test_what_is_nested_deeper_than_python_reads_is_an_error(demo: LoadedModel) -> None:
    chat = demo.chat()
    chat.ask("A city?", max_tokens=1)
    deep = dataclasses.replace(chat.last, text="[" * 90_000 + "]" * 90_000, finish_reason="stop")
    with pytest.raises(edgesppo.IncompleteAnswer, match="nested too deep") as caught:
        structured.answer_format(True).value(deep)
    assert caught.value.text == deep.text


def test_stop_strings_beside_a_schema_are_refused(demo: LoadedModel) -> None:
    with pytest.raises(edgesppo.UsageError, match=r"stop is .*, but the schema decides"):
        demo.ask("A city?", schema=CITY, stop="}")
    with pytest.raises(edgesppo.UsageError, match=r"stop_tokens is .*, but the schema decides"):
        demo.ask("A city?", schema=CITY, stop_tokens=[5])


def test_a_schema_is_refused_before_anything_is_asked(demo: LoadedModel) -> None:
    chat = demo.chat()
    with pytest.raises(edgesppo.UsageError, match="the keyword 'not'"):
        chat.ask("A city?", schema={"not": {}})
    with pytest.raises(edgesppo.UsageError, match=r"\Aschema is 'json', expected "):
        chat.ask("A city?", schema="json")
    assert chat.messages == []


@dataclasses.dataclass
class Town:
    name: Annotated[str, pydantic.Field(max_length=9)]
    size: Annotated[int, pydantic.Field(ge=0, le=9)] = 0


class Street(TypedDict):
    number: Annotated[int, pydantic.Field(ge=1, le=99)]


class Grade(enum.IntEnum):
    GOOD = 1
    BAD = 2


class Plain:
    pass


TYPES: list[tuple[Any, Callable[[Any], bool]]] = [
    (bool, lambda value: type(value) is bool),
    (int, lambda value: type(value) is int),
    (float, lambda value: type(value) is float),
    (Annotated[str, pydantic.Field(max_length=5)], lambda value: type(value) is str),
    (type(None), lambda value: value is None),
    (Literal["yes", "no"], lambda value: value in {"yes", "no"}),
    (Kind, lambda value: type(value) is Kind),
    (Grade, lambda value: type(value) is Grade),
    (int | None, lambda value: value is None or type(value) is int),
    (tuple[bool, Grade], lambda value: [*map(type, value)] == [bool, Grade]),
    (Town, lambda value: type(value) is Town),
    (Street, lambda value: value.keys() == {"number"}),
    (
        Annotated[list[Mayor], pydantic.Field(min_length=1, max_length=2)],
        lambda value: {*map(type, value)} == {Mayor},
    ),
]


@pytest.mark.parametrize(("asked", "holds"), TYPES)
def test_ask_with_a_type_returns_a_value_of_it(
    demo: LoadedModel, asked: Any, holds: Callable[[Any], bool]
) -> None:
    assert holds(demo.ask("Which?", schema=asked, seed=3, max_tokens=400))


class Odd(pydantic.BaseModel):
    call: Callable[[], int]


@pytest.mark.parametrize(
    ("schema", "found", "advice"),
    [
        ("json", "'json'", ""),
        (
            '{"type": "object"}',
            '\'{"type": "object"}\'',
            r"; parse the text first, with json.loads",
        ),
        (5, "5", ""),
        ([CITY], r"\[\{'type': 'object'", ""),
        (b"{}", "b'{}'", ""),
        (Town("Rome"), r"Town\(name='Rome', size=0\)", ""),
        (Mayor(name="Ada"), "an instance of Mayor", "; pass the class Mayor itself"),
    ],
)
def test_what_is_no_schema_is_refused_with_what_is_accepted(
    demo: LoadedModel, schema: Any, found: str, advice: str
) -> None:
    accepted = (
        r"a JSON Schema \(a dict, True or False\), a type such as a pydantic model class or "
        r"list\[int\], or 'json_object'"
    )
    chat = demo.chat()
    calls: list[Callable[[], object]] = [
        lambda: demo.ask("A city?", schema=schema),
        lambda: chat.ask("A city?", schema=schema),
        lambda: next(chat.stream("A city?", schema=schema)),
    ]
    for call in calls:
        with pytest.raises(edgesppo.UsageError) as caught:
            call()
        message = str(caught.value)
        assert re.match(rf"schema is {found}.*, expected {accepted}{advice}", message), message
        assert "\n" not in message


def test_a_type_without_a_schema_is_refused_by_name(demo: LoadedModel) -> None:
    odd: list[tuple[Any, str]] = [
        (Odd, "the class Odd, which has no JSON Schema"),
        (pydantic.BaseModel, "the class BaseModel, which has no JSON Schema"),
        (Plain, "the class Plain, which has no JSON Schema"),
        (list[Plain], r"the type list\[.*Plain\], which has no JSON Schema"),
        (set[int], "schema, at #: the keyword 'uniqueItems' is not supported"),
    ]
    for asked, message in odd:
        with pytest.raises(edgesppo.UsageError, match=message):
            demo.ask("A city?", schema=asked)


def test_a_type_says_where_pydantic_is_missing(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(edgesppo.UsageError, match=r"the class int, .*\(pip install pydantic"):
        demo.ask("A number?", schema=int)


def test_importing_structured_answers_loads_neither_numpy_nor_pydantic() -> None:
    program = "import edgesppo.chat.structured, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not set(done.stdout.decode().split()) & {"numpy", "pydantic", "llama_cpp"}


def _run(tmp_path: Path, model: object, schema: object, *options: str) -> Result:
    file = tmp_path / "schema.json"
    file.write_text(schema if isinstance(schema, str) else json.dumps(schema))
    words = ["run", str(model), "A city?", "--schema", str(file), *options]
    return CliRunner().invoke(main, words)


def test_run_prints_the_json_on_one_line(tmp_path: Path, demo_gguf: Path) -> None:
    done = _run(tmp_path, demo_gguf, CITY, "--seed", "1")
    assert done.exit_code == 0
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout).keys() == {"name", "people"}


def test_run_with_json_has_text_and_value(tmp_path: Path, demo_gguf: Path) -> None:
    done = _run(tmp_path, demo_gguf, CITY, "--seed", "1", "--json")
    found = json.loads(done.stdout)
    assert found["value"] == json.loads(found["text"])
    assert found["finish_reason"] == "stop"


def test_run_exits_with_one_line_when_the_answer_was_cut(tmp_path: Path, demo_gguf: Path) -> None:
    done = _run(tmp_path, demo_gguf, CITY, "--max-tokens", "4")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("edgesppo: the answer ended before its JSON")
    assert "(maxLength, maxItems)" in done.stderr
    as_json = _run(tmp_path, demo_gguf, CITY, "--max-tokens", "4", "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["error"]["type"] == "IncompleteAnswer"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "not JSON"),
        ({"not": {}}, "the keyword 'not' is not supported"),
        ("[" * 50_000, "nested too deep"),
        (" " * 1_000_001, "it has more than 1,000,000 bytes"),
    ],
)
def test_run_refuses_a_bad_schema_before_it_looks_at_the_model(
    tmp_path: Path, schema: object, message: str
) -> None:
    done = _run(tmp_path, tmp_path / "no-such-model.gguf", schema)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_run_says_when_there_is_no_schema_file(tmp_path: Path) -> None:
    words = ["run", "demo", "x", "--schema", str(tmp_path / "none.json")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1
    assert (
        done.stderr
        == f"edgesppo: {tmp_path / 'none.json'}: cannot be read: No such file or directory\n"
    )
