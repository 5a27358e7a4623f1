"""A program of a user's: mypy must find the types of all it calls. It is never run.

Each `type: ignore` is itself an error where there is nothing to ignore, as when all is Any.
"""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any, Literal

from typing_extensions import assert_type

import edgesppo
from edgesppo_convert import ConvertResult, convert


class River:
    """As a pydantic class would be: what an answer is made into."""

    name: str

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """The JSON Schema of the class."""
        return {"type": "object"}

    @classmethod
    def model_validate_json(cls, text: str) -> "River":
        """An instance, from the text of its JSON."""
        del text
        return cls()


def chatting(model: edgesppo.LoadedModel) -> None:
    """The answers of a chat."""
    chat = model.chat(system="Be brief.", temperature=0)
    assert_type(chat, edgesppo.Chat)
    assert_type(chat.ask("Hello!"), str)
    assert_type(chat.ask("A river?", schema=River), River)
    assert_type(chat.ask("A river?", schema={"type": "string"}), Any)
    assert_type(chat.ask("Rivers?", schema=list[str]), list[str])
    assert_type(chat.ask("Yes or no?", schema=Literal["yes", "no"]), Any)
    assert_type(chat.stream("Hello!"), Generator[edgesppo.Chunk, None, None])
    assert_type(chat.astream("Hello!"), AsyncGenerator[edgesppo.Chunk, None])
    assert_type([chunk.text for chunk in chat.stream("Hello!")], list[str])
    assert_type(chat.last, edgesppo.Result)
    chat.stream(1)  # type: ignore[arg-type]
    chat.steam("Hello!")  # type: ignore[attr-defined]


async def listening(chat: edgesppo.Chat) -> None:
    """The pieces of an answer, beside other tasks."""
    async for chunk in chat.astream("Hello!"):
        assert_type(chunk, edgesppo.Chunk)


def main() -> None:
    """From a checkpoint to an answer."""
    made = convert("checkpoint", Path("model.gguf"), type="q4_k_m")
    assert_type(made, ConvertResult)
    assert_type(made.output, Path)
    convert("checkpoint", None)  # type: ignore[arg-type]
    with edgesppo.load(made.output, n_ctx=2048) as model:
        assert_type(model, edgesppo.LoadedModel)
        assert_type(model.ask("Hello!"), str)
        assert_type(model.ask("A river?", schema=River).name, str)
        assert_type(model.tokenize("Hello!"), list[int])
        chatting(model)
        for result in edgesppo.batch(model, [{"prompt": "Hello!"}], n=2, temperature=0):
            assert_type(result, edgesppo.BatchResult)
            assert_type(result.texts, list[str])
        edgesppo.batch(model, ["Hello!"], temprature=0)  # type: ignore[call-arg]
