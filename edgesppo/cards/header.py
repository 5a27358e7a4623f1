"""The header of a model card on the hub: what its YAML says, from a file and its lock's entry.

https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo.lockfile.entries import REPOSITORY, UNKNOWN_LICENSE, is_link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgesppo.lockfile.entries import PinnedModel

# A text that YAML takes for itself without quotes.
_PLAIN = re.compile(r"[A-Za-z][\w./-]*(?::[\w./-]+)*", re.ASCII)
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
# What a licence is called in a header; a file may have anything there.
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")


@dataclass(frozen=True)
class Sources:
    """All that a card may state: what the file says, what a lock knows, and what was measured.

    `file` is what `metadata.describe` returns, `repository` the OWNER/NAME that the file was
    converted from, and `entry` that repository's in a lock; None where they are unknown. `type` is
    the file's type, such as Q4_K_M; where its tensors have others than that type's recipe gives
    them it `is_mixed`, and `type` lists theirs. `measurements` are the figures of benchmarks and
    evaluations of this file, by their names.
    """

    file: Mapping[str, Any]
    file_name: str
    type: str
    sha256: str
    repository: str | None = None
    entry: PinnedModel | None = None
    is_mixed: bool = False
    measurements: Sequence[tuple[str, Mapping[str, Any]]] = ()

    @property
    def title(self) -> str:
        """The name of the model, without its owner."""
        known = self.repository.rpartition("/")[2] if self.repository else None
        return known or self.file["name"] or self.file_name

    @property
    def datasets(self) -> list[str]:
        """The repositories of the data that the model was trained on."""
        named = [name for name in self.file["lineage"]["datasets"] if REPOSITORY.fullmatch(name)]
        known = self.entry.dataset if self.entry is not None else None
        return named or ([known] if known else [])

    @property
    def license(self) -> Mapping[str, str | None]:
        """The claims of the licence: header, name, link, in_text; the file's, else the lock's."""
        claims: Mapping[str, str | None] = self.file["license"]
        entry = self.entry
        if claims["header"] or entry is None:
            return claims
        return {
            "header": entry.license,
            "name": entry.license_name,
            "link": entry.license_link,
            "in_text": entry.license_in_text,
        }


def header(sources: Sources) -> dict[str, str | list[str]]:
    """The keys of the header, in their order, without those that nothing is known of."""
    base, relation = _base(sources)
    values: dict[str, str | list[str] | None] = {
        **_license(sources),
        "base_model": base,
        "base_model_relation": relation,
        "datasets": sources.datasets,
        "language": _languages(sources),
        "pipeline_tag": "text-generation",
        "quantized_by": sources.file["lineage"]["quantized_by"],
        "tags": ["gguf", "gemma2", *([method.lower()] if (method := _method(sources)) else [])],
    }
    return {key: value for key, value in values.items() if value}


def render(values: Mapping[str, str | list[str]]) -> str:
    """The header as YAML between its two lines."""
    lines = ["---"]
    for key, value in values.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"- {_scalar(item)}" for item in value)]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return "\n".join([*lines, "---", ""])


def _base(sources: Sources) -> tuple[str | list[str] | None, str | None]:
    """The model that this one comes from, and how.

    Where the file does not say what it was converted from, that is what the model says of itself.
    """
    if sources.repository is not None:
        return sources.repository, "quantized"
    named = [name for name in sources.file["lineage"]["base_models"] if REPOSITORY.fullmatch(name)]
    if len(named) == 1:
        return named[0], "finetune"
    return named or None, "merge" if named else None


def _license(sources: Sources) -> dict[str, str | None]:
    claims = sources.license
    said, link = (claims["header"] or "").lower(), claims["link"]
    known = said != UNKNOWN_LICENSE and _LICENSE.fullmatch(said)
    return {
        "license": said if known else None,
        "license_name": claims["name"] if known else None,
        "license_link": link if link is not None and is_link(link) else None,
    }


def _languages(sources: Sources) -> list[str]:
    named = [code for code in sources.file["languages"] if _LANGUAGE.fullmatch(code)]
    training = sources.entry.training if sources.entry is not None else None
    known = training.language if training is not None else None
    return named or ([known] if known else [])


def _method(sources: Sources) -> str | None:
    method: str | None = sources.file["lineage"]["method"]
    return method or (sources.entry.method if sources.entry is not None else None)


def _scalar(text: str) -> str:
    """A text in YAML: plain where that is safe, else quoted as in JSON, which YAML contains."""
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return text if is_plain else json.dumps(text, ensure_ascii=False)
