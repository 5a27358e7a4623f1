"""See through the prefixes that tools leave in the names of tensors.

    _orig_mod.model.layers.0...               torch.compile
    module.model.layers.0...                  DataParallel, DeepSpeed
    base_model.model.model.layers.0...        PEFT
    language_model.model.layers.0...          a model cut out of a larger one
    layers.0...                               Gemma2Model, saved without its head

A prefix goes only where all names agree on it: else the names stay as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from edgesppo.errors import BadCheckpoint, UnsupportedCheckpoint
from edgesppo_convert.gemma2.architecture import EMBEDDING, HEAD
from edgesppo_convert.source.json_reader import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    T = TypeVar("T")

MODEL = "model."
# Wrappers stand before the parts that they wrap, anywhere in a name.
_WRAPPERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"))
_OUTER = frozenset(("base_model", "language_model", "model"))  # may stand before the model's names
_EMBEDDING = EMBEDDING.removeprefix(MODEL)
_UNMERGED = (".lora_A.", ".lora_B.", ".base_layer.")


def plain_names(tensors: Mapping[str, T], where: str) -> dict[str, T]:
    """The tensors by the names that Gemma2ForCausalLM gives them; `where` names the checkpoint.

    Raises UnsupportedCheckpoint for a model that still holds an adapter beside its weights.
    """
    unmerged = next((name for name in tensors if any(mark in name for mark in _UNMERGED)), None)
    if unmerged is not None:
        raise UnsupportedCheckpoint(
            f"{where} holds a model with an adapter that is not merged into its weights: it has the"
            f" tensor {show(unmerged)}; merge it with peft (merge_and_unload()) and save it again,"
            " or save the adapter alone and convert the base model with --adapter"
        )
    plain: dict[str, T] = {}
    for name, tensor in tensors.items():
        short = unwrapped(name)
        if short in plain:
            raise BadCheckpoint(
                f"{where} has the tensor {show(short)} twice, once as {show(name)}; expected one"
            )
        plain[short] = tensor
    prefix = _common_prefix(plain)
    return plain if prefix is None else {_renamed(n, prefix): t for n, t in plain.items()}


def unwrapped(name: str) -> str:
    """A tensor's name without the parts that wrappers leave in it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _common_prefix(names: Mapping[str, object]) -> str | None:
    """What stands before `embed_tokens` and all other names but the head; None if they differ."""
    found = [name.removesuffix(_EMBEDDING) for name in names if name.endswith(_EMBEDDING)]
    if len(found) != 1 or found[0] == MODEL:
        return None
    prefix = found[0]
    is_known = prefix == "" or (prefix[-1] == "." and set(prefix[:-1].split(".")) <= _OUTER)
    agree = all(name.startswith(prefix) or _is_head(name, prefix) for name in names)
    return prefix if is_known and agree else None


def _is_head(name: str, prefix: str) -> bool:
    """Whether a name is the head's, which stands outside of the innermost `model`."""
    outer = name.removesuffix(HEAD)
    return outer != name and prefix.startswith(outer)


def _renamed(name: str, prefix: str) -> str:
    return HEAD if _is_head(name, prefix) else MODEL + name.removeprefix(prefix)
