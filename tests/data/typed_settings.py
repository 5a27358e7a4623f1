"""A program of a user's that sets parameters: mypy must find its mistakes, and no others.

Each `type: ignore` is itself an error where there is nothing to ignore. It is never run.
"""

from typing import Any

import numpy as np
from pydantic import BaseModel
from typing_extensions import assert_type

import edgesppo


class City(BaseModel):
    """What an answer is made into, with pydantic."""

    name: str


def settings(model: edgesppo.LoadedModel) -> None:
    """What is taken as a parameter, and mistakes in it."""
    chat = model.chat(messages=[{"role": "user", "content": "Hi"}], system="x", overflow="error")
    chat.messages = [{"role": "user", "content": "Hi"}, edgesppo.Message("assistant", "Hello")]
    assert_type(chat.ask("Hi", temperature=np.float32(1), seed=np.int64(3), stop="x"), str)
    assert_type(chat.ask("Hi", schema=City), City)
    assert_type(chat.ask("Hi", schema="json_object"), Any)
    assert_type(model.ask([{"role": "user", "content": "Hi"}], schema={"type": "object"}), Any)
    chat.ask("Hi", temprature=3)  # type: ignore[call-overload]
    chat.ask("Hi", temperature="hot")  # type: ignore[call-overload]
    chat.ask("Hi", schema="json")  # type: ignore[call-overload]
    chat.ask("Hi", schema=5)  # type: ignore[call-overload]
    model.chat(overflow="cut")  # type: ignore[arg-type]
    model.chat(samplers=["top_q"])  # type: ignore[list-item]
    edgesppo.load("demo", cache_type="f8")  # type: ignore[arg-type]
    edgesppo.load("demo", tune="fast")  # type: ignore[arg-type]
    edgesppo.load("demo", gpu="yes")  # type: ignore[arg-type]
    model.resume("a.chat", temprature=3)  # type: ignore[call-arg]
    model.engine.close()  # type: ignore[attr-defined]
