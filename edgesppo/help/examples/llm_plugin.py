"""A plug-in for `llm`, Simon Willison's command line for language models.

Put this file into a folder of its own, with this pyproject.toml beside it:

    [project]
    name = "llm-edgesppo"
    version = "0.1"
    dependencies = ["llm"]
    [project.entry-points.llm]
    edgesppo = "llm_plugin"
    [tool.setuptools]
    py-modules = ["llm_plugin"]

Then, in the virtual environment that has edgesppo:

    .venv/bin/pip install llm
    .venv/bin/llm install -e FOLDER
    .venv/bin/llm -m edgesppo/demo "What is the capital of France?"
    .venv/bin/llm chat -m edgesppo/sppo-iter3
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import llm
from pydantic import Field

import edgesppo

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("sppo-iter3", "demo")


@functools.cache
def loaded(name: str) -> edgesppo.LoadedModel:
    """The model, loaded when it is first asked."""
    return edgesppo.load(name)


class Edgesppo(llm.Model):
    """A model of this machine."""

    can_stream = True
    supports_schema = True

    class Options(llm.Options):
        """What `llm -o NAME VALUE` sets."""

        temperature: float | None = Field(default=None, ge=0, description="0: the most probable")
        seed: int | None = Field(default=None, ge=0, description="The same seed, the same answer")
        max_tokens: int | None = Field(default=None, ge=1, description="The most tokens")

    def __init__(self, name: str) -> None:
        self.name = name
        self.model_id = f"edgesppo/{name}"

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,  # llm puts the pieces together where it does not stream
        response: llm.Response,
        conversation: llm.Conversation | None,
    ) -> Iterator[str]:
        """Yield the pieces of an answer."""
        del stream
        turns: list[Any] = []
        system = None  # llm sends it with the first message only
        for earlier in conversation.responses if conversation else ():
            system = earlier.prompt.system or system
            turns.append({"role": "user", "content": earlier.prompt.prompt})
            turns.append({"role": "assistant", "content": earlier.text_or_raise()})
        sampling = {k: v for k, v in prompt.options.model_dump().items() if v is not None}
        system = prompt.system or system
        chat = loaded(self.name).chat(messages=turns, system=system, **sampling)
        if prompt.schema:
            yield json.dumps(chat.ask(prompt.prompt, schema=prompt.schema))
        else:
            for chunk in chat.stream(prompt.prompt):
                yield chunk.text
        usage = chat.last.usage
        response.set_usage(input=usage.prompt_tokens, output=usage.completion_tokens)


@llm.hookimpl
def register_models(register: Any) -> None:
    """Tell llm the models that it can ask."""
    for name in NAMES:
        register(Edgesppo(name))
