"""The loaded model as Python code sees it: figures, texts for people, and clear refusals."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import pydoc
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest

import edgesppo
from edgesppo.gguf import file_types

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgesppo.loaded_model import LoadedModel


def test_a_model_tells_its_name_context_and_file(demo: LoadedModel, demo_gguf: Path) -> None:
    assert demo.name == demo_gguf.stem
    assert demo.n_ctx == 512
    assert demo.path == demo_gguf


def test_reprs_say_what_the_thing_is(demo_gguf: Path) -> None:
    with edgesppo.load(demo_gguf) as model:
        assert repr(model) == "<Model demo-q4_k_m 3.8M Q4_K_M, 512 tokens>"
        chat = model.chat(temperature=0)
        assert repr(chat) == "<Chat with demo-q4_k_m, no turn yet>"
        assert "not begun" in repr(chat.stream("Hi"))
        assert "async for" in repr(chat.astream("Hi"))
        *_, last = chat.stream("What is the capital of France?", max_tokens=4)
        assert repr(last).startswith("<Chunk ")
        assert repr(last).endswith(", length>")
        answer = chat.last.text
        assert repr(chat.last) == f"<Result {answer!r}, 4 tokens, length>"
        assert repr(chat) == f"<Chat with demo-q4_k_m, 1 turn, the last answer {answer!r}>"
        assert repr(chat.messages[1]) == f"Message('assistant', {answer!r})"
        chat.messages[1] = {"role": "assistant", "content": "x" * 10_000}
        assert len(repr(chat)) < 200
        assert len(repr(chat.messages[1])) < 100
    assert repr(model) == "<Model demo-q4_k_m 3.8M Q4_K_M, 512 tokens, closed>"
    assert "1 turn" in repr(chat)


def test_the_names_of_file_types_are_those_of_the_format() -> None:
    known = {number.value: name for name, number in gguf.LlamaFileType.__members__.items()}
    for number, name in file_types.NAMES.items():
        if number > 38:
            continue  # newer than the oldest gguf package that will do
        assert known[number].removeprefix("MOSTLY_").removeprefix("ALL_") == name


@pytest.mark.parametrize("text", ["Hello there!", "", " a\n\tb ", "naïve \U0001f600"])
def test_detokenize_gives_the_text_that_was_tokenized(demo: LoadedModel, text: str) -> None:
    ids = demo.tokenize(text)
    for same in (ids, tuple(ids), iter(ids), np.array(ids, dtype=np.int32), map(np.int64, ids)):
        assert demo.detokenize(same) == text


def test_detokenize_leaves_control_tokens_out(demo: LoadedModel) -> None:
    assert demo.detokenize(demo.tokenize("Hi", chat=True)) == "user\nHi\nmodel\n"


@pytest.mark.parametrize(
    ("ids", "fault"),
    [
        ([-1], "a token id is -1, expected a whole number from 0"),
        ([2**31], "a token id is 2147483648, expected"),
        ([1.5], "a token id is 1.5, expected"),
        ([True], "a token id is True, expected"),
        ("Hi", "ids is 'Hi', expected a list of token ids"),
        (5, "ids is 5, expected a list of token ids"),
        (None, "ids is None, expected a list of token ids"),
    ],
)
def test_what_is_no_token_id_is_refused(demo: LoadedModel, ids: Any, fault: str) -> None:
    with pytest.raises(edgesppo.UsageError, match=fault):
        demo.detokenize(ids)


def test_numeric_arguments_take_numpy_numbers(demo_gguf: Path, tmp_path: Path) -> None:
    n: Any = np.int64
    zero: Any = np.int16(0)
    with edgesppo.load(demo_gguf, n_ctx=n(256), n_threads=n(1), n_seqs=n(2), gpu=zero) as model:
        assert model.n_ctx == 256
        assert type(model.n_ctx) is int
        chat = model.chat()
        chat.ask("Hi", max_tokens=n(3), temperature=np.float32(0.5), seed=np.uint32(7))
        assert chat.last.usage.completion_tokens <= 3
        model.save(chat, tmp_path / "a.chat", snapshots=n(10**9))
        assert model.resume(tmp_path / "a.chat").messages == chat.messages


@pytest.mark.parametrize("snapshots", [-1, 1.5, True, None, "2GB"])
def test_a_limit_for_snapshots_that_is_no_size_is_refused(
    demo: LoadedModel, tmp_path: Path, snapshots: Any
) -> None:
    with pytest.raises(edgesppo.UsageError, match=r"snapshots.* is .*, expected a whole number"):
        demo.save(demo.chat(), tmp_path / "a.chat", snapshots=snapshots)


def test_resuming_a_chat_that_is_not_there_says_so(demo: LoadedModel, tmp_path: Path) -> None:
    for path in (tmp_path / "none.chat", str(tmp_path / "no folder" / "none.chat")):
        with pytest.raises(edgesppo.ChatNotFound, match=r"none\.chat: there is no such file; "):
            demo.resume(path)
    (tmp_path / "empty.chat").touch()
    with pytest.raises(edgesppo.BadChat):
        demo.resume(tmp_path / "empty.chat")


def test_mistyped_options_are_refused_with_the_one_that_was_meant(
    demo: LoadedModel, tmp_path: Path
) -> None:
    path = tmp_path / "a.chat"
    demo.save(demo.chat(messages=[]), path)
    chat = demo.chat()
    wrong: list[tuple[Any, str, str]] = [
        (demo.chat, "sytem", "system"),
        (demo.chat, "mesages", "messages"),
        (demo.chat, "overflw", "overflow"),
        (lambda **o: demo.ask("Hi", **o), "shema", "schema"),
        (lambda **o: demo.ask("Hi", **o), "response_format", "schema"),
        (lambda **o: chat.ask("Hi", **o), "shema", "schema"),
        (lambda **o: next(chat.stream("Hi", **o)), "max_token", "max_tokens"),
        (lambda **o: demo.resume(path, **o), "sytem", "system"),
        (lambda **o: demo.resume(path, **o), "temprature", "temperature"),
    ]
    for call, name, meant in wrong:
        with pytest.raises(edgesppo.UsageError, match=rf"{name}' \(did you mean {meant}\?\)"):
            call(**{name: 1})


def test_one_question_is_answered_alike_in_all_four_ways(demo: LoadedModel) -> None:
    chat = demo.chat(temperature=0)
    chat.ask("My name is Ada.")
    given = [*chat.to_dicts(), {"role": "user", "content": "What is my name?"}]

    async def later() -> tuple[str, str]:
        pieces = [chunk.text async for chunk in demo.astream(given, temperature=0)]
        return await demo.aask(given, temperature=0), "".join(pieces)

    answer = demo.ask(given, temperature=0)
    assert "Ada" in answer
    assert "".join(chunk.text for chunk in demo.stream(given, temperature=0)) == answer
    assert asyncio.run(later()) == (answer, answer)
    assert demo.ask("Is Rome in Italy?", schema={"type": "boolean"}) in (True, False)
    with pytest.raises(edgesppo.UsageError, match="not one message"):
        demo.stream(given[0])  # type: ignore[arg-type]


def test_an_answer_is_json(demo: LoadedModel) -> None:
    chat = demo.chat()
    chat.ask("Hi", temperature=0, logprobs=1, max_tokens=2)
    found = json.loads(json.dumps(chat.last.to_dict()))
    assert found["text"] == chat.last.text
    assert found["usage"]["completion_tokens"] == 2
    assert len(found["logprobs"]) == 2
    chat.ask("Hi", max_tokens=1)
    assert "logprobs" not in chat.last.to_dict()


def test_what_cannot_be_done_with_a_chat_says_what_can(demo: LoadedModel) -> None:
    chat = demo.chat(system="Be brief.")
    with pytest.raises(AttributeError, match=r"chat\.params\.replace\(temperature=\.\.\.\)"):
        chat.temperature = 1  # type: ignore[attr-defined]
    for act in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match=r"chat\.fork\(\) copies it"):
            act(chat)
        with pytest.raises(TypeError, match=r"load\(\) it in each process"):
            act(demo)
    chat.messages.append({"role": "user", "content": "My name is Ada."})
    with pytest.raises(edgesppo.UsageError, match=r"has no answer \(index 0\); ask it: "):
        chat.ask("What?")
    assert chat.ask(chat.messages.pop().content)


def test_a_closed_model_begins_nothing(demo_gguf: Path) -> None:
    with edgesppo.load(demo_gguf) as model:
        pass
    with pytest.raises(edgesppo.Closed, match="load it again"):
        model.chat()
    with pytest.raises(edgesppo.Closed, match="load it again"), model:
        pass


def test_the_help_shows_the_api_and_little_else() -> None:
    text = pydoc.render_doc(edgesppo, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    for call in ("load(model", "model.chat(", "chat.fork()", "class LoadedModel", "class Chat("):
        assert call in text
    first = ["Chat", "EdgesppoError", "LoadedModel", "SamplingParams", "batch", "errors"]
    assert dir(edgesppo) == sorted([*first, "evaluate", "load", "__version__"])
    for internal in ("with_traceback", "binding", "mark(", "importlib", "TYPE_CHECKING"):
        assert internal not in text
    assert dir(edgesppo.ContextOverflow) == ["__init__", "of_prompt"]


def test_a_mistyped_public_name_gets_a_suggestion() -> None:
    with pytest.raises(AttributeError, match=r"'ChatNotfound' \(did you mean ChatNotFound\?\)"):
        edgesppo.ChatNotfound  # noqa: B018


def test_an_unknown_keyword_is_answered_with_the_nearest_known_one(demo: LoadedModel) -> None:
    calls: dict[str, Callable[[], object]] = {
        r"load\(\) has no argument 'nctx' \(did you mean n_ctx\?\)": lambda: edgesppo.load(
            "demo",
            nctx=512,  # type: ignore[call-arg]
        ),
        r"'temprature' \(did you mean temperature\?\)": lambda: edgesppo.SamplingParams(
            temprature=1  # type: ignore[call-arg]
        ),
        r"'sytem' \(did you mean system\?\)": lambda: demo.chat(sytem="x"),  # type: ignore[call-arg]
        r"no stream=.*chat\.stream": lambda: demo.ask("Hi", stream=True),  # type: ignore[call-overload]
    }
    for said, call in calls.items():
        with pytest.raises(edgesppo.UsageError, match=said):
            call()
