"""What the requests of the API have in common: strict models, and the sampling parameters."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edgesppo.sampling.options import NAMES
from edgesppo.sampling.params import MAX_SEED, MIN_TEMPERATURE
from edgesppo.server.errors import bad_request, unsupported
from edgesppo.system.suggest import did_you_mean

_MOST_BIASES = 1024
_ANY_SEED = -1
_NO_THINKING = {"enable_thinking": False}


def _biases(value: Any) -> Any:
    """JSON has strings for the token ids."""
    if not isinstance(value, dict):
        return value
    if len(value) > _MOST_BIASES:
        raise ValueError(f"there are {len(value)} tokens, expected at most {_MOST_BIASES}")
    if not all(isinstance(key, str) and key.isdecimal() and len(key) < 10 for key in value):
        raise ValueError("expected token ids as keys")
    return {int(key): bias for key, bias in value.items()}


# A list with a hundred thousand wrong items is told of the first one, in no time.
FIRST_ERROR = Field(fail_fast=True)
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """A part of a request: of exactly these types, with no other key."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RequestModel(Strict):
    """The body of a request. Keys in `REFUSED` are refused by name, unless their value is harmless.

    An unknown key is refused, too, with the known one that is most like it.
    """

    REFUSED: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """The description, without what is refused although others have it."""
        described: dict[str, Any] = handler.resolve_ref_schema(handler(core))
        for name in cls.REFUSED:
            described["properties"].pop(name, None)
        return described

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise bad_request("the body is not a JSON object", code="invalid_json")
        for name, (what, harmless) in cls.REFUSED.items():
            value = data.get(name)
            if isinstance(value, dict):  # clients write out what they do not set
                value = {key: one for key, one in value.items() if one is not None}
            if value is not None and value not in harmless:
                raise unsupported(what, name)
        known = [*cls.model_fields, *cls.REFUSED]
        for name in data:
            if name not in known:
                near = did_you_mean(name, known)
                raise bad_request(
                    f"unknown parameter {name[:64]!r}{near}", name[:64], "unknown_parameter"
                )
        return {name: value for name, value in data.items() if name not in cls.REFUSED}


class Notes(RequestModel):
    """What changes no answer here: checked, and then without effect.

    Notes of the caller's, and of llama-server's options those for its own cache: this one's is
    always used, and a sequence is chosen by what it holds. Its others have harmless values, too.
    """

    REFUSED: ClassVar[dict[str, tuple[str, tuple[Any, ...]]]] = {
        "chat_template_kwargs": ("settings of a chat template are", ({}, _NO_THINKING)),
        "ignore_eos": ("going on after the end (ignore_eos) is", (False,)),
        "reasoning_format": ("reasoning is", ("none", "auto")),
        "return_progress": ("telling the progress of a prompt is", (False,)),
        "timings_per_token": ("timings of each token are", (False,)),
    }

    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    cache_prompt: bool | None = None
    id_slot: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None


class Sampling(RequestModel):
    """The sampling parameters; what is not given is the model's default."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    top_k: Count | None = None
    min_p: Share | None = None
    typical_p: Share | None = None
    xtc_probability: Share | None = None
    xtc_threshold: Share | None = None
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    repeat_last_n: Count | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    dry_multiplier: Annotated[float, Field(ge=0, le=100)] | None = None
    dry_base: Annotated[float, Field(ge=1, le=100)] | None = None
    dry_allowed_length: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    dry_penalty_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Field(ge=0, le=100)] | None = None
    mirostat_eta: Share | None = None
    dry_sequence_breakers: Annotated[list[str], Field(max_length=8)] | None = None
    samplers: Annotated[list[str], Field(max_length=16)] | None = None
    stop_tokens: Annotated[list[Count], Field(max_length=64)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None  # -1: any
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    stop: (
        Annotated[str, Field(max_length=1000)]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=16)
        ]
        | None
    ) = None
    logit_bias: (
        Annotated[
            dict[int, Annotated[float, Field(ge=-100, le=100)]],
            BeforeValidator(_biases),
            Field(max_length=_MOST_BIASES),
        ]
        | None
    ) = None

    def sampling(self) -> dict[str, Any]:
        """The parameters that were given, by the names of SamplingParams."""
        given = {name: getattr(self, name) for name in NAMES if name in Sampling.model_fields}
        found = {name: value for name, value in given.items() if value is not None}
        if found.get("seed") == _ANY_SEED:
            del found["seed"]
        if "seed" in found:  # clients draw larger ones than there are here
            found["seed"] %= MAX_SEED + 1
        if found.get("stop") == "":
            del found["stop"]
        if found.get("temperature", 1) < MIN_TEMPERATURE:  # "as good as 0", clients mean
            found["temperature"] = 0
        return found


def example(**body: Any) -> ConfigDict:
    """The configuration of a request of which the API's description has an example."""
    return ConfigDict(json_schema_extra={"examples": [body]})


class StreamOptions(Strict):
    """What a stream tells beside the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False
