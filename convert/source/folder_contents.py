"""Say what is in a folder that is no complete checkpoint, and what to type instead.

People give what they have: a folder with a GGUF file in it, the cache of the hub, a trainer's
output, an adapter, weights under another name.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from edgesppo.errors import BadCheckpoint, EdgesppoError, UnsupportedCheckpoint
from edgesppo.lockfile import layers
from edgesppo.lockfile.entries import REPOSITORY
from edgesppo.system.shell import shell_word
from edgesppo_convert.source.adapter import ADAPTER_CONFIG
from edgesppo_convert.source.json_reader import MAX_JSON, parse_json, read_bytes, show
from edgesppo_convert.source.safetensors import Shard

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_ONLY_SHARD = "model-00001-of-00001.safetensors"
_STEP = re.compile(r"checkpoint-(\d+)")
# What Unsloth appends to the name of a quantised copy, beside which it has the model itself.
_QUANTISED = re.compile(r"(?:-unsloth)?-bnb-4bit$")
_UNFINISHED = (".incomplete", ".part", ".partial", ".crdownload", ".download", ".aria2")
_OF_CHECKPOINTS = (".json", ".safetensors", ".model")  # how names of their files end
_HUB_DOWNLOADS = Path(".cache", "huggingface", "download")  # of the hub's tool, in a local folder
_DEEPSPEED, _FSDP = "zero_to_fp32.py", "pytorch_model_fsdp*"
# Weights that are not safetensors, as patterns of their names, and what wrote them.
_FOREIGN = (
    ("pytorch_model*.bin*", "a pickle, which can run code when it is read"),
    ("consolidated*.pth", "a pickle, which can run code when it is read"),
    ("*.pt", "a pickle, which can run code when it is read"),
    ("*.pth", "a pickle, which can run code when it is read"),
    ("*.ckpt", "a pickle, which can run code when it is read"),
    ("tf_model*.h5", "of TensorFlow"),
    ("flax_model*.msgpack", "of Flax"),
    ("*.weights.h5", "of Keras"),
    ("*.npz", "of NumPy"),
    ("*.onnx", "of ONNX"),
)
_MOST_ENTRIES = 10_000  # of a folder that are looked at


def missing(where: str, names: Sequence[str], lacks: str, folder: Path | None) -> BadCheckpoint:
    """The error for a checkpoint without `lacks`, which has files of these names.

    `folder` is its folder, None for a repository on the hub.
    """
    found = _adapter(where, names, folder) or _gguf(names, folder)
    if found is None and folder is not None:
        found = _cache(folder) or _subfolders(folder, names)
    found = found or _other_weights(names, folder) or _unfinished(names, folder)
    if found is not None:
        kind = BadCheckpoint if found.startswith("it is not complete") else UnsupportedCheckpoint
        return kind(f"{where} has no {lacks}: {found}")
    if folder is None:
        return BadCheckpoint(f"{where} has no {lacks}; is it a Gemma-2 model?")
    has = ", ".join(map(show, sorted(names)[:4])) + (" ..." if len(names) > 4 else "")
    holds = f"holds {has}" if names else "is empty"
    where_to_get = "to get a model: edgesppo pull OWNER/NAME --convert"
    if not any(name.endswith(_OF_CHECKPOINTS) for name in names):
        return BadCheckpoint(f"{where} is no checkpoint: it {holds}; {where_to_get}")
    return BadCheckpoint(
        f"{where} has no {lacks}; is the download complete? It {holds}; {where_to_get}"
    )


def _adapter(where: str, names: Sequence[str], folder: Path | None) -> str | None:
    if ADAPTER_CONFIG not in names:
        return None
    base: object = None
    if folder is not None:
        with suppress(EdgesppoError):
            path = folder / ADAPTER_CONFIG
            base = parse_json(read_bytes(path, MAX_JSON), str(path)).raw("base_model_name_or_path")
    made_for = f" for {show(base)}" if base else ""
    return (
        f"it is an adapter (LoRA){made_for}, which is merged into its base model as that is"
        f" converted: {_merge_command(base, where if folder is not None else 'DIR')}"
        + (", where DIR is the folder that you download it to" if folder is None else "")
    )


def _merge_command(base: object, adapter: str) -> str:
    """The command that merges an adapter into the base model that it names."""
    end = f"--adapter {shell_word(adapter)}"
    if isinstance(base, str):
        base = _QUANTISED.sub("", base)
    if not isinstance(base, str) or _is_folder(base) or not REPOSITORY.fullmatch(base):
        known = isinstance(base, str) and _is_folder(base)
        return f"edgesppo convert {shell_word(str(base)) if known else 'BASE'} {end} -o OUT.gguf"
    entry = None
    with suppress(EdgesppoError):
        entry = layers.read().of_repository(base)
    return f"edgesppo pull {entry.name if entry else base} --convert {end}"


def _is_folder(name: str) -> bool:
    with suppress(OSError, ValueError):  # of a name that no file can have
        return Path(name).is_dir()
    return False


def _gguf(names: Sequence[str], folder: Path | None) -> str | None:
    found = sorted(name for name in names if name.lower().endswith(".gguf"))
    if not found:
        return None
    path = found[0] if folder is None else shell_word(str(folder / found[0]))
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"it holds the GGUF file {found[0]}{more}, already converted: edgesppo chat {path}"


def _cache(folder: Path) -> str | None:
    """What to give instead of a folder of the hub's cache above the snapshots."""
    snapshots = folder if folder.name == "snapshots" else folder / "snapshots"
    revisions = [path for path in _folders(snapshots) if _is_model(path)]
    if revisions:
        current = b""
        with suppress(EdgesppoError):
            current = read_bytes(snapshots.parent / "refs" / "main", MAX_JSON).strip()
        is_current = [os.fsencode(path.name) == current for path in revisions]
        chosen = revisions[is_current.index(True) if any(is_current) else -1]
        return f"it is a folder of the hub's cache; the model is in {_convert(chosen)}"
    gguf = next(iter(sorted(snapshots.glob("*/*.gguf"))), None)
    if gguf is not None:
        return f"it is a folder of the hub's cache: edgesppo chat {shell_word(str(gguf))}"
    above = (*_folders(folder), *_folders(folder / "hub"))
    models = [path for path in above if path.name.startswith("models--")]
    if folder.name.startswith("models--") and (folder / "blobs").is_dir():
        return (
            "it is not complete: it is a folder of the hub's cache without a whole snapshot;"
            " download it again"
        )
    if models:
        names = ", ".join(path.name for path in models[:4])
        snapshot = next((path for path in _folders(models[0] / "snapshots")), None)
        which = _convert(snapshot) if snapshot else f"{models[0].name}/snapshots/COMMIT"
        return f"it is the hub's cache, with {names}; give one of its snapshots, such as {which}"
    return None


def _subfolders(folder: Path, names: Sequence[str]) -> str | None:
    """What to give instead of a folder whose subfolders hold models or adapters."""
    steps = {
        int(match[1]): path for path in _folders(folder) if (match := _STEP.fullmatch(path.name))
    }
    inner = [steps[step] for step in sorted(steps, reverse=True)]
    inner += [path for path in _folders(folder) if path not in inner]
    model = next((path for path in inner if _is_model(path)), None)
    if model is not None:
        kind = "a trainer's output" if model in steps.values() else "a folder above the model"
        return f"it is {kind}; the model is in {_convert(model)}"
    gguf = next((file for path in inner for file in sorted(path.glob("*.gguf"))), None)
    if gguf is not None:
        return f"it is a folder above a GGUF file: edgesppo chat {shell_word(str(gguf))}"
    adapter = next((path for path in inner if (path / ADAPTER_CONFIG).is_file()), None)
    if adapter is not None:
        text = _adapter(str(adapter), [ADAPTER_CONFIG], adapter)
        return f"it is a folder above an adapter, {adapter.name}: {text}"
    if _DEEPSPEED in names:
        path = shell_word(str(folder))
        return (
            "it holds DeepSpeed's parts of a model; put them together first:"
            f" python {path}/{_DEEPSPEED} {path} OUT --safe_serialization"
        )
    if any(fnmatch(path.name, _FSDP) or any(path.glob("*.distcp")) for path in _folders(folder)):
        return (
            "it holds FSDP's parts of a model; put them together first: accelerate merge-weights"
            f" {shell_word(str(folder))} OUT"
        )
    return None


def _other_weights(names: Sequence[str], folder: Path | None) -> str | None:
    """What to do about weights that have another name, or another form."""
    shards = [name for name in names if _SHARD.fullmatch(name) and name != _ONLY_SHARD]
    if shards and INDEX not in names and SINGLE not in names:
        return (
            f"it has {len(shards)} shards such as {shards[0]}, but no {INDEX}; copy that file from"
            " where the model comes from"
        )
    named = [name for name in names if name.endswith(".safetensors")]
    if named and SINGLE not in names and INDEX not in names:
        return _safetensors(sorted(named), folder)
    if SINGLE in names or INDEX in names:
        return None
    for pattern, kind in _FOREIGN:
        name = next((name for name in sorted(names) if fnmatch(name, pattern)), None)
        if name is not None:
            return (
                f"it has its weights only as {name}, {kind}; expected safetensors: load the model"
                f" with transformers and save it again with save_pretrained(...,"
                " safe_serialization=True)"
            )
    return None


def _safetensors(names: Sequence[str], folder: Path | None) -> str:
    """What to do about safetensors of another name than transformers gives them."""
    if folder is None or len(names) > 1:
        return f"it has weights under other names: {', '.join(names[:4])}; expected {SINGLE}"
    path = folder / names[0]
    with suppress(EdgesppoError):
        shard = Shard(path)
        shard.close()
        if not any(name.endswith("embed_tokens.weight") for name in shard.tensors):
            return (
                f"it has weights as {names[0]}, whose tensors are not named as transformers names"
                f" them, such as {show(next(iter(shard.tensors), ''))}; save the model again with"
                " transformers' save_pretrained"
            )
    new = shell_word(str(folder / SINGLE))
    return f"it has weights as {names[0]}; give them that name: mv {shell_word(str(path))} {new}"


def _unfinished(names: Sequence[str], folder: Path | None) -> str | None:
    found = next((name for name in names if name.endswith(_UNFINISHED)), None)
    if found is None and folder is not None:
        partial = sorted((folder / _HUB_DOWNLOADS).glob("*.incomplete"))
        found = str(partial[0].relative_to(folder)) if partial else None
    if found is None:
        return None
    return f"it is not complete: {found} is an unfinished download; start the download again"


def unfinished_download(shards: Sequence[str], names: Sequence[str]) -> str | None:
    """The file that a download in progress keeps beside one of the shards; None without one.

    Some programs give a file its whole size before its bytes have come.
    """
    marks = {shard + suffix for shard in shards for suffix in _UNFINISHED}
    return min(marks.intersection(names), default=None)


def _convert(folder: Path) -> str:
    path = shell_word(str(folder))
    return f"{folder.name}: edgesppo convert {path} -o OUT.gguf"


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, in the order of their names; none if it cannot be read."""
    with suppress(OSError):
        entries = [path for path, _ in zip(folder.iterdir(), range(_MOST_ENTRIES), strict=False)]
        return sorted(path for path in entries if path.is_dir())
    return []


def _is_model(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and any(folder.glob("*.safetensors"))
