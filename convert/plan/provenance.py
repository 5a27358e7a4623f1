"""The GGUF keys that say where a file comes from: name, lineage, licence, hashes of the inputs.

    general.*                       the standard keys, from the model card and the name; what the
                                    card leaves out, from models.lock
    edgesppo.license.in_text        the licence in the card's text, if its header has another
    edgesppo.lineage.*              method, iteration and paper, if models.lock has the model
    edgesppo.source.revision        the commit of the repository, if known
    edgesppo.source.files           "NAME SHA256" of every small file that a conversion reads
    edgesppo.source.weight_headers  "NAME SHA256" of every shard's header: names, shapes, offsets
    edgesppo.source.weights         "NAME SHA256" of every shard; zeros until it was read
    edgesppo.source.adapters        "NAME=WEIGHT/FILE SHA256" of every file of the adapters that
                                    were merged; without the weight where that is 1

No time, no path, no user: the same checkpoint gives the same keys.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from gguf import GGUFValueType, Keys, Metadata, size_label

from edgesppo._version import __version__
from edgesppo.hub.model_card import CARD, Card, read_card
from edgesppo.lockfile import toml
from edgesppo_convert.gguf_format import KeyValue
from edgesppo_convert.source.checkpoint import SMALL_FILES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo_convert.source.adapter import Adapter
    from edgesppo_convert.source.checkpoint import Checkpoint, Origin

HUB = "https://huggingface.co"
LICENSE_LINKS = {"gemma": "https://ai.google.dev/gemma/terms"}
LICENSE_IN_TEXT = "edgesppo.license.in_text"
REVISION = "edgesppo.source.revision"
FILES = "edgesppo.source.files"
WEIGHT_HEADERS = "edgesppo.source.weight_headers"
WEIGHTS = "edgesppo.source.weights"
ADAPTERS = "edgesppo.source.adapters"
LINEAGE = "edgesppo.lineage"
UNREAD = "0" * 64


def collect(checkpoint: Checkpoint, size: int, adapters: Sequence[Adapter] = ()) -> list[KeyValue]:
    """All keys of the provenance; `size` is the model's number of weights."""
    origin, card = checkpoint.origin, read_card(checkpoint.read_small(CARD))
    entry = toml.read().of_repository(f"{origin.owner}/{origin.name}")
    if entry is not None:
        card = _completed(card, entry)
    texts = [
        (Keys.General.NAME, " + ".join((origin.name, *(each.name for each in adapters)))),
        *_name_parts(origin, size),
        (Keys.General.QUANTIZED_BY, f"edgesppo {__version__}"),
        (Keys.General.SIZE_LABEL, size_label(size, size, 0, 0)),
        *_license(card),
        *_source(origin),
    ]
    return [
        *(KeyValue(key, GGUFValueType.STRING, text) for key, text in texts if text),
        *_references("base_model", card.base_models, ""),
        *_references("dataset", card.datasets, "/datasets"),
        *_lineage(entry),
        *_inputs(checkpoint),
        *_adapters(adapters),
    ]


def _completed(card: Card, entry: PinnedModel) -> Card:
    """The card; what it leaves out is filled in from the repository's entry in models.lock."""
    claims_none = card.license is None
    return Card(
        license=card.license or entry.license,
        license_name=card.license_name,
        license_link=card.license_link or (entry.license_link if claims_none else None),
        license_in_text=card.license_in_text or entry.license_in_text,
        base_models=card.base_models or _as_tuple(entry.base_model),
        datasets=card.datasets or _as_tuple(entry.dataset),
    )


def _as_tuple(text: str | None) -> tuple[str, ...]:
    return () if text is None else (text,)


def _lineage(entry: PinnedModel | None) -> Iterator[KeyValue]:
    if entry is None:
        return
    for name in ("method", "paper"):
        if text := getattr(entry, name):
            yield KeyValue(f"{LINEAGE}.{name}", GGUFValueType.STRING, text)
    if entry.iteration is not None:
        yield KeyValue(f"{LINEAGE}.iteration", GGUFValueType.UINT32, entry.iteration)


def _name_parts(origin: Origin, size: int) -> Iterator[tuple[str, str | None]]:
    """The basename, finetune and version in a name like `Gemma-2-9B-It-SPPO-Iter3`."""
    _, _, basename, finetune, version, _ = Metadata.get_model_id_components(origin.name, size)
    if basename is not None:
        yield Keys.General.BASENAME, basename
        yield Keys.General.FINETUNE, finetune
        yield Keys.General.VERSION, version
    yield Keys.General.ORGANIZATION, origin.owner


def _license(card: Card) -> Iterator[tuple[str, str | None]]:
    header, text = card.license, card.license_in_text
    yield Keys.General.LICENSE, header or text
    yield Keys.General.LICENSE_NAME, card.license_name
    yield Keys.General.LICENSE_LINK, card.license_link or LICENSE_LINKS.get(header or "")
    if header and text and header.lower() != text.lower():
        yield LICENSE_IN_TEXT, text


def _source(origin: Origin) -> Iterator[tuple[str, str | None]]:
    if origin.owner is not None:
        url = f"{HUB}/{origin.owner}/{origin.name}"
        yield Keys.General.SOURCE_URL, f"{url}/tree/{origin.revision}"
        yield Keys.General.SOURCE_REPO_URL, url
        yield REVISION, origin.revision


def _references(kind: str, repositories: Sequence[str], under: str) -> Iterator[KeyValue]:
    """Keys for other repositories of the hub that the model was made from."""
    if repositories:
        yield KeyValue(f"general.{kind}.count", GGUFValueType.UINT32, len(repositories))
    for number, repository in enumerate(repositories):
        owner, name = repository.split("/")
        texts = {"name": name, "organization": owner, "repo_url": f"{HUB}{under}/{repository}"}
        for key, text in texts.items():
            yield KeyValue(f"general.{kind}.{number}.{key}", GGUFValueType.STRING, text)


def _inputs(checkpoint: Checkpoint) -> Iterator[KeyValue]:
    shards = sorted(checkpoint.shards, key=lambda shard: shard.name)
    headers = [f"{shard.name} {shard.header_sha256}" for shard in shards]
    yield KeyValue(FILES, GGUFValueType.STRING, list(_small_hashes(checkpoint)))
    yield KeyValue(WEIGHT_HEADERS, GGUFValueType.STRING, headers)
    yield _weights({shard.name: UNREAD for shard in shards})


def _adapters(adapters: Sequence[Adapter]) -> Iterator[KeyValue]:
    if adapters:
        entries = [
            f"{each.label}/{file} {digest}" for each in adapters for file, digest in each.digests
        ]
        yield KeyValue(ADAPTERS, GGUFValueType.STRING, entries)


def with_weights(keys: Iterable[KeyValue], digests: Mapping[str, str]) -> list[KeyValue]:
    """The keys with the sha256 of every shard (by name) in place of the zeros."""
    return [_weights(digests) if entry.key == WEIGHTS else entry for entry in keys]


def _weights(digests: Mapping[str, str]) -> KeyValue:
    entries = [f"{name} {digests[name]}" for name in sorted(digests)]
    return KeyValue(WEIGHTS, GGUFValueType.STRING, entries)


def _small_hashes(checkpoint: Checkpoint) -> Iterator[str]:
    for name in SMALL_FILES:
        data = checkpoint.read_small(name)
        if data is not None:
            yield f"{name} {hashlib.sha256(data).hexdigest()}"
