"""`connect`: a server's model as a LoadedModel."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any, cast

from edgesppo.api import LoadedModel
from edgesppo.errors import EdgesppoError
from edgesppo.remote.client import Client
from edgesppo.remote.engine import RemoteEngine
from edgesppo.remote.tokenizer import RemoteTokenizer
from edgesppo.sampling.params import SamplingParams, valid_values
from edgesppo.sessions.transcript import ModelMark

if TYPE_CHECKING:
    from edgesppo.engine.engine import Engine
    from edgesppo.llama.model import Model


class RemoteModel(LoadedModel):
    """A model that a server has loaded; closing it ends what is asked of the server."""

    def __init__(self, client: Client, card: dict[str, Any], load_s: float) -> None:
        tokenizer = RemoteTokenizer(client)
        engine = RemoteEngine(client, tokenizer, int(card["meta"]["n_ctx"]))
        sampling, _ = valid_values(card["meta"]["sampling"])
        defaults = SamplingParams().replace(**sampling)
        # They have what a chat uses of a model and an engine.
        model = cast("Model", tokenizer)
        super().__init__(card["id"], model, cast("Engine", engine), defaults, load_s, None)
        self._url = client.url

    def __repr__(self) -> str:
        return f"<Model {self.name} at {self._url}, {self.n_ctx:,} tokens>"

    @property
    def _mark(self) -> ModelMark:
        """The description of this model in saved chats."""
        assert self._url is not None, "it is a server's"
        digest = hashlib.sha256(f"{self._url} {self.name}".encode()).hexdigest()
        return ModelMark(self.name, self._url, digest, self.n_ctx)


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
