"""`connect`: a server's model as a LoadedModel."""

from __future__ import annotations

import functools
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from edgesppo.errors import EdgesppoError, UsageError
from edgesppo.interior import Interior
from edgesppo.loaded_model import LoadedModel
from edgesppo.remote.client import Client
from edgesppo.remote.engine import RemoteEngine
from edgesppo.remote.tokenizer import RemoteTokenizer
from edgesppo.sampling.params import SamplingParams, valid_values
from edgesppo.sessions.model_identity import ModelIdentity
from edgesppo.sessions.transcript import ModelMark

if TYPE_CHECKING:
    from edgesppo.chat.answer_engine import AnswerEngine
    from edgesppo.engine.engine import Engine


@dataclass(frozen=True)
class RemoteIdentity(ModelIdentity):
    """A server's model as saved chats know it: by the server's address and its name there."""

    url: str

    @functools.cached_property
    def mark(self) -> ModelMark:
        """The description of the model in saved chats."""
        digest = hashlib.sha256(f"{self.url} {self.name}".encode()).hexdigest()
        return ModelMark(self.name, self.url, digest, self.engine.n_ctx)


class RemoteModel(LoadedModel):
    """A model that a server has loaded; closing it ends what is asked of the server."""

    def __init__(self, client: Client, card: dict[str, Any], load_s: float) -> None:
        tokenizer = RemoteTokenizer(client)
        remote = RemoteEngine(client, tokenizer, card["id"], int(card["meta"]["n_ctx"]))
        sampling, _ = valid_values(card["meta"]["sampling"])
        defaults = SamplingParams().replace(**sampling)
        answering: AnswerEngine = remote  # it has what a chat uses of an engine
        engine = cast("Engine", answering)  # those who use more ask for the `url` first
        identity = RemoteIdentity(card["id"], engine, client.url)
        super().__init__(card["id"], Interior(engine, identity, defaults, client.url), load_s)

    def __repr__(self) -> str:
        return f"<Model {self.name} at {self._interior.url}, {self.n_ctx:,} tokens>"

    def score(self, *_: Any, **__: Any) -> Any:
        """Raise UsageError: a server tells no log-probabilities of a given text."""
        raise UsageError(f"{self._interior.url} cannot score a text; load the model here to do so")


def connect(url: str, key: str = "") -> RemoteModel:
    """The model of the server at a URL. Raises UsageError and EdgesppoError."""
    started = time.perf_counter()
    client = Client(url, key)
    found = client.ask("/v1/models")
    try:
        return RemoteModel(client, found["data"][0], time.perf_counter() - started)
    except (KeyError, IndexError, TypeError):
        raise EdgesppoError(
            f"{url} is a server, but not one of edgesppo; `edgesppo serve` starts one"
        ) from None
