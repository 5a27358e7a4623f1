"""The loaded llama.cpp library: its functions, its log and how it was built.

The only file that imports llama_cpp.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from edgesppo.errors import NativeError
from edgesppo.llama import late_package

late_package.register("llama_cpp", lambda: _listen_again())

import llama_cpp  # noqa: E402
import llama_cpp.llama_cpp as _typed  # noqa: E402

# Untyped: the binding's own annotations of ctypes values are ones that no caller can satisfy.
C: Any = _typed


def _version() -> str:
    """The version of llama-cpp-python, without running the package's `__init__` that names it."""
    try:
        text = Path(llama_cpp.__file__).read_text(encoding="utf-8")
    except OSError:  # in a bundle there is no such file
        return metadata.version("llama-cpp-python")
    found = re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)
    return found[1] if found else llama_cpp.__version__


LIBRARY_VERSION = _version()
_LOG_LINES = 60
_WARN, _ERROR = 3, 4  # ggml_log_level

# llama.cpp's latest warnings and errors: (level, line). Cleared before each native operation.
log: collections.deque[tuple[int, str]] = collections.deque(maxlen=_LOG_LINES)


@C.llama_log_callback  # type: ignore[untyped-decorator]
def capture(level: int, text: bytes, _data: object) -> None:
    """Keep llama.cpp's warnings and errors in `log`."""
    if level in (_WARN, _ERROR):
        log.append((level, text.decode("utf-8", "replace").strip()))


@functools.cache
def start() -> None:
    """Initialise the library; only the first call does anything."""
    _listen()
    C.llama_backend_init()


def _listen() -> None:
    C.llama_log_set(capture, None)


def _listen_again() -> None:
    """Take the log back from llama_cpp's own `__init__`."""
    if start.cache_info().currsize:
        _listen()


def reason() -> str:
    """The first error that llama.cpp logged, else its first warning; later ones repeat it."""
    for wanted in (_ERROR, _WARN):
        for level, line in log:
            if level == wanted and line:
                return " ".join(line.split(": ", 1)[-1].split())
    return "it gave no reason"


def lacks_memory() -> bool:
    """Whether llama.cpp logged a failed allocation."""
    return any(level == _ERROR and "alloc" in line for level, line in log)


def system_info() -> str:
    """llama.cpp's own line on what it was compiled for ("CPU : AVX2 = 1 | FMA = 1 ...")."""
    return str(C.llama_print_system_info().decode().strip())


def has_amx_kernels() -> bool:
    """Whether the build has llama.cpp's AMX kernels.

    GCC optimises their tile configuration away, so their first use ends the process
    (https://github.com/ggml-org/llama.cpp/pull/26954). They are used for repacked weights only.
    """
    return "AMX_INT8 = 1" in system_info()


def can_offload() -> bool:
    """Whether the build supports a GPU and the machine has one."""
    return bool(C.llama_supports_gpu_offload())


@functools.cache
def ggml_base() -> ctypes.CDLL:
    """The libggml-base of llama-cpp-python, with the functions that the converter calls declared.

    `ggml_quantize_chunk(type, src, dst, start, n_rows, n_per_row, imatrix)` reads float32 and
    writes blocks; `start` is in weights and must be a multiple of `n_per_row`. It may be called
    from many threads at once (ctypes releases the GIL) after `ggml_quantize_init(type)`.

    Raises NativeError when the library is not installed.
    """
    folder = Path(llama_cpp.__file__).parent / "lib"
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll", "libggml-base.dll")
    found = [folder / name for name in names if (folder / name).exists()]
    if not found:
        raise NativeError(
            f"no ggml-base library in {folder}; install llama-cpp-python {LIBRARY_VERSION} again"
        )
    library = ctypes.CDLL(str(found[0]))
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    library.ggml_quantize_init.restype = None
    sizes = [ctypes.c_int64] * 3
    library.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
        *sizes,
        ctypes.c_void_p,
    ]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    for name in ("ggml_fp32_to_fp16_row", "ggml_fp32_to_bf16_row"):
        function = getattr(library, name)
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None
    return library


class ThreadPoolParams(ctypes.Structure):
    """`ggml_threadpool_params`."""

    _fields_ = (
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    )


class ThreadFunctions:
    """The functions of ggml's thread pools, which the binding leaves out."""

    def __init__(self, library: Any) -> None:
        self.params_default = _declared(
            library.ggml_threadpool_params_default, ThreadPoolParams, ctypes.c_int
        )
        self.new = _declared(
            library.ggml_threadpool_new, ctypes.c_void_p, ctypes.POINTER(ThreadPoolParams)
        )
        self.free = _declared(library.ggml_threadpool_free, None, ctypes.c_void_p)
        self.attach = _declared(library.llama_attach_threadpool, None, *[ctypes.c_void_p] * 3)


@functools.cache
def thread_functions() -> ThreadFunctions | None:
    """The functions of thread pools; None if this build does not have them as we know them."""
    try:
        # Found through libllama. The wheel holds each library under several names, as copies: one
        # that is opened by another name would be a second one, whose tables are never filled.
        found = ThreadFunctions(C._lib)
    except AttributeError:  # Windows looks in libllama alone
        return None
    params = found.params_default(3)
    # What we write must lie where the library reads it.
    as_known = (params.n_threads, params.prio, params.strict_cpu, params.paused) == (3, 0, 0, 0)
    return found if as_known and 0 <= params.poll <= 100 else None


def _declared(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, list(arguments)
    return function
