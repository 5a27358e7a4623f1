"""`Head`: the first line of a batch's journal, which says what the output belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.system import filelock

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 2


@dataclass(frozen=True)
class Head:
    """What an output belongs to: its input, the model, and the recipe by which it is made."""

    input: Mapping[str, Any]
    model: Mapping[str, Any]
    recipe: Mapping[str, Any]

    def event(self) -> dict[str, Any]:
        """The first line of a journal."""
        parts = {"input": self.input, "model": self.model, "recipe": self.recipe}
        return {"edgesppo": "batch", "version": VERSION, **filelock.this_process(), **parts}

    def difference(self, event: Mapping[str, Any]) -> str | None:
        """What is another in a journal's first line, in words; None if it is the same batch."""
        before, now = event.get("input") or {}, self.input
        if before.get("sha256") != now["sha256"]:
            return f"another input, {before.get('name')} with other rows"
        before, now = event.get("model") or {}, self.model
        if before.get("fingerprint") != now["fingerprint"]:
            return f"another model, {before.get('name')} ({now['name']} now)"
        before, now = event.get("recipe") or {}, self.recipe
        for key in now:
            if before.get(key) != now[key]:
                was, is_ = _shown(before.get(key)), _shown(now[key])
                return f"another recipe: {key} was {was} and is {is_} now"
        return None


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)
