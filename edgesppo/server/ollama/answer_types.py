"""The bodies of what the server answers over Ollama's API: answers, their pieces, and models."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

from edgesppo.openai_api.answer_types import PositionLogprob


class OllamaFunction(TypedDict):
    """Which function is called, with its arguments."""

    name: str
    arguments: Any


class OllamaCall(TypedDict):
    """A call that the model made."""

    function: OllamaFunction


class OllamaMessage(TypedDict):
    """The answer, or a piece of it; calls come with the last one."""

    role: Literal["assistant"]
    content: str
    tool_calls: NotRequired[list[OllamaCall]]


class OllamaPiece(TypedDict):
    """What /api/chat and /api/generate have in common. The figures come with the last piece."""

    model: str
    created_at: str
    done: bool
    logprobs: NotRequired[list[PositionLogprob]]
    done_reason: NotRequired[str]
    total_duration: NotRequired[int]
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]
    prompt_eval_duration: NotRequired[int]
    eval_count: NotRequired[int]
    eval_duration: NotRequired[int]


class OllamaChatPiece(OllamaPiece):
    """An answer to a conversation, or a line of its stream."""

    message: OllamaMessage


class OllamaGeneratePiece(OllamaPiece):
    """An answer to one text, or a line of its stream."""

    response: str


class OllamaVersion(TypedDict):
    """The version of Ollama whose API this is, and of this server."""

    version: str
    edgesppo: str


class OllamaDetails(TypedDict):
    """What a model is."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(TypedDict):
    """A model that is served."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


class OllamaLoadedModel(OllamaModel):
    """A model that is loaded."""

    expires_at: str
    size_vram: int
    context_length: int


class OllamaModels(TypedDict):
    """The models that are served."""

    models: list[OllamaModel]


class OllamaLoaded(TypedDict):
    """The models that are loaded."""

    models: list[OllamaLoadedModel]


class OllamaCard(TypedDict):
    """A model's card."""

    modelfile: str
    parameters: str
    template: str
    license: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str
