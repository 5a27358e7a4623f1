"""llama.cpp's own quantiser, the reference for the bytes that the converter writes."""

from __future__ import annotations

import contextlib
import ctypes
import re
from typing import TYPE_CHECKING, Any

import llama_cpp
from gguf import GGMLQuantizationType, GGUFReader, LlamaFileType

from edgesppo.gguf import reader
from edgesppo.llama import library

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

FILE_TYPES = {
    "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
    "q4_k_s": LlamaFileType.MOSTLY_Q4_K_S,
    "q5_k_m": LlamaFileType.MOSTLY_Q5_K_M,
    "q5_k_s": LlamaFileType.MOSTLY_Q5_K_S,
    "q6_k": LlamaFileType.MOSTLY_Q6_K,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "iq4_xs": LlamaFileType.MOSTLY_IQ4_XS,
    "f16": LlamaFileType.MOSTLY_F16,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "f32": LlamaFileType.ALL_F32,
}


class TensorOverride(ctypes.Structure):
    """`struct llama_model_tensor_override` of llama.h."""

    _fields_ = (("pattern", ctypes.c_char_p), ("type", ctypes.c_int))


@llama_cpp.llama_log_callback
def _nothing(level: int, text: bytes, data: Any) -> None:
    """Drop log messages: llama.cpp logs every tensor."""


@contextlib.contextmanager
def quiet(log: Any = _nothing) -> Iterator[None]:
    """Silence llama.cpp in the block, or hear its log; afterwards it goes to the runtime again."""
    library.start()
    llama_cpp.llama_log_set(log, None)
    try:
        yield
    finally:
        llama_cpp.llama_log_set(library.capture, None)


def llama_quantize(source: Path, target: Path, kind: str, **chosen: Any) -> None:
    """Quantise a file; `importance` and `overrides` as _settings takes them."""
    with _settings(kind, **chosen) as settings, quiet():
        code = llama_cpp.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(settings))
    assert code == 0


def llama_types(source: Path, kind: str, **chosen: Any) -> dict[str, str]:
    """The type that llama.cpp would give to each tensor, as it says in a dry run."""
    said: list[bytes] = []

    @llama_cpp.llama_log_callback
    def keep(_level: int, text: bytes, _data: Any) -> None:
        said.append(text)

    with _settings(kind, **chosen) as settings, quiet(keep):
        settings.dry_run = True
        code = llama_cpp.llama_model_quantize(bytes(source), b"nothing", ctypes.byref(settings))
    assert code == 0
    log = b"".join(said).decode()
    found = re.findall(
        r"^\[ *\d+/ *\d+\] (\S+) +- .* type = +(\w+), .*?(?:\((\w+)\))?$", log, re.MULTILINE
    )
    return {name: (new or old).upper() for name, old, new in found}


@contextlib.contextmanager
def _settings(
    kind: str,
    *,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
    overrides: Sequence[tuple[str, str]] = (),
) -> Iterator[llama_cpp.llama_model_quantize_params]:
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = FILE_TYPES[kind]
    settings.nthread = 2
    if importance is not None:
        entries = _entries(importance)
        settings.imatrix = ctypes.cast(entries, type(settings.imatrix))
    if overrides:
        wanted = _overrides(overrides)
        settings.tt_overrides = ctypes.cast(wanted, type(settings.tt_overrides))
    yield settings


def _entries(importance: Mapping[str, NDArray[np.float32]]) -> Any:
    entry = llama_cpp.llama_model_imatrix_data
    floats = ctypes.POINTER(ctypes.c_float)
    entries = [
        entry(name.encode(), values.ctypes.data_as(floats), values.size)
        for name, values in importance.items()
    ]
    return (entry * (len(entries) + 1))(*entries)


def _overrides(overrides: Sequence[tuple[str, str]]) -> Any:
    entries = [
        TensorOverride(pattern.encode(), GGMLQuantizationType[kind.upper()])
        for pattern, kind in overrides
    ]
    return (TensorOverride * (len(entries) + 1))(*entries)


def tensors(path: Path) -> dict[str, tuple[str, NDArray[Any]]]:
    return {t.name: (t.tensor_type.name, t.data) for t in GGUFReader(path).tensors}


def differences(one: Path, other: Path) -> list[str]:
    """The names of tensors whose type, shape or bytes differ between two files."""
    ours, theirs = _stored(one), _stored(other)
    return [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]


def _stored(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor as the file has it; read by our own reader, which is faster than gguf's."""
    data = path.read_bytes()
    return {
        t.name: (t.type, t.dims, data[t.offset : t.offset + t.n_bytes])
        for t in reader.read(path).tensors
    }
