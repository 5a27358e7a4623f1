"""Which model answers a saved chat: what its turns say of it, and what fits its KV cells."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesppo.gguf.fingerprint import fingerprint
from edgesppo.llama.library import LIBRARY_VERSION, system_info
from edgesppo.sessions.kv_snapshot import Binding
from edgesppo.sessions.transcript import ModelMark

if TYPE_CHECKING:
    from edgesppo.engine.engine import Engine


@dataclass(frozen=True)
class ModelIdentity:
    """A loaded model as saved chats know it: its name, and the engine that answers with it."""

    name: str
    engine: Engine

    @functools.cached_property
    def mark(self) -> ModelMark:
        """The description of the model in saved chats: name, path, fingerprint and n_ctx.

        Raises Closed, or BadModelFile if the file was changed in place.
        """
        model = self.engine.model
        header = model.summary.file_bytes - model.summary.data_bytes
        _ = model.weights  # raises Closed
        model.file.check()
        with model.file.open() as file:  # its path may name another file by now
            digest = fingerprint(file, max(0, header))
        return ModelMark(self.name, str(model.path.absolute()), digest, self.engine.n_ctx)

    @property
    def binding(self) -> Binding:
        """What a saved KV state must match: this model, this build of llama.cpp, these settings."""
        library = f"{LIBRARY_VERSION} {system_info()}"
        return Binding(self.mark.fingerprint, library, self.engine.settings)
