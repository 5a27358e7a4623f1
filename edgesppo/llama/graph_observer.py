"""Watch the matrix products of a context while it computes: the inputs that weights are applied to.

llama.cpp calls the evaluation callback of a context (`cb_eval`) for every node of the graph, before
and, where it is wanted, after the node was computed. What it passes is a `struct ggml_tensor`,
which the binding does not declare: the mirror here follows ggml.h of the pinned version.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgesppo.errors import NativeError
from edgesppo.llama.library import LIBRARY_VERSION, C, ggml_base

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_PRODUCT = b"MUL_MAT"
_OBJECT_BYTES = 32  # of the header that ggml puts before each tensor
_F32 = 0


class Tensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),  # sizes, the fastest-varying first
        ("nb", ctypes.c_size_t * 4),  # strides in bytes
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
        ("extra", ctypes.c_void_p),
        ("padding", ctypes.c_char * 8),
    )


class Observer(Protocol):
    """What a context calls for every node that it computes."""

    callback: Any

    def begin(self) -> None:
        """Get ready for a batch; called before each."""

    def check(self) -> None:
        """Raise what went wrong in the callback; called after each batch."""


class Input:
    """What one or more weights were applied to: a row for each token.

    The weights of a layer share inputs (queries, keys and values; gate and up), so `weights` may
    grow until the computation is over.
    """

    def __init__(self, weight: str, rows: NDArray[np.float32]) -> None:
        self.weights = [weight]
        self.rows = rows


class GraphObserver:
    """Shows the input of each product with a weight that `wants` names.

    `on_input` is called with each input while the graph is computed, in the thread that computes;
    `rows` is valid only then. The computation ends after the weight `last`, if given: its logits
    are then meaningless. A context that was given an observer must be used by one thread at a time.
    Raises NativeError if the library is another one than the mirror is made for.
    """

    def __init__(
        self,
        wants: Callable[[str], bool],
        on_input: Callable[[Input], None],
        last: str | None = None,
    ) -> None:
        self._wants = wants
        self._on_input = on_input
        self._last = last
        self._product = _product_number()
        self._inputs: dict[int, Input] = {}  # by the address of the tensor
        self._failure: BaseException | None = None
        self._stopped = False
        self.callback = C.ggml_backend_sched_eval_callback(self._call)

    def begin(self) -> None:
        """Forget the inputs of the last batch; call it before each."""
        self._inputs.clear()
        self._stopped = False

    def check(self) -> None:
        """Raise what `on_input` raised; call it after each batch."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _call(self, address: int, ask: bool, _data: object) -> bool:
        if self._stopped or self._failure is not None:
            return False
        try:
            return self._ask(address) if ask else self._show(address)
        except BaseException as error:  # it must not pass through native code
            self._failure = error
            return False

    def _ask(self, address: int) -> bool:
        node = Tensor.from_address(address)
        if node.op != self._product:
            return False
        weight = weight_name(Tensor.from_address(node.src[0]).name)
        if not self._wants(weight):
            return False
        known = self._inputs.get(node.src[1])
        if known is None:
            return True
        known.weights.append(weight)
        return weight == self._last

    def _show(self, address: int) -> bool:
        node = Tensor.from_address(address)
        weight = weight_name(Tensor.from_address(node.src[0]).name)
        if node.src[1] not in self._inputs:
            found = Input(weight, _rows(node.src[1]))
            self._inputs[node.src[1]] = found
            self._on_input(found)
        self._stopped = weight == self._last
        return not self._stopped


@functools.cache
def _product_number() -> int:
    """ggml's number of the matrix product. Raises NativeError if the mirror does not fit."""
    library = ggml_base()
    library.ggml_op_name.argtypes = [ctypes.c_int]
    library.ggml_op_name.restype = ctypes.c_char_p
    library.ggml_tensor_overhead.restype = ctypes.c_size_t
    library.ggml_backend_buffer_is_host.argtypes = [ctypes.c_void_p]
    library.ggml_backend_buffer_is_host.restype = ctypes.c_bool
    sizes = [ctypes.c_size_t] * 2
    library.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *sizes]
    library.ggml_backend_tensor_get.restype = None
    expected = _OBJECT_BYTES + ctypes.sizeof(Tensor)
    if library.ggml_tensor_overhead() != expected:
        raise NativeError(
            f"a tensor of this ggml takes {library.ggml_tensor_overhead()} bytes, expected "
            f"{expected}; install llama-cpp-python {LIBRARY_VERSION} again"
        )
    numbers = range(1, 256)
    return next(number for number in numbers if library.ggml_op_name(number) == _PRODUCT)


def weight_name(name: bytes) -> str:
    """The weight's own name; a copy on a GPU is called CUDA0#NAME#0."""
    parts = name.split(b"#")
    return parts[1 if len(parts) > 1 else 0].decode("utf-8", "replace")


def _rows(address: int) -> NDArray[np.float32]:
    """The rows of a tensor of float32: a view where they are in this process' memory, or a copy."""
    tensor: Any = Tensor.from_address(address)
    width, *counts = tensor.ne
    n_rows = int(np.prod(counts))
    strides = tensor.nb
    is_packed = all(strides[n + 1] == strides[n] * tensor.ne[n] for n in range(3))
    if tensor.type != _F32 or strides[0] != 4 or not is_packed:
        raise NativeError(f"the input {tensor.name!r} of a product is not packed float32")
    library = ggml_base()
    if library.ggml_backend_buffer_is_host(tensor.buffer):
        kind = ctypes.POINTER(ctypes.c_float * (n_rows * width))
        view = np.frombuffer(ctypes.cast(tensor.data, kind).contents, np.float32)
        return view.reshape(n_rows, width)
    copy = np.empty((n_rows, width), np.float32)
    library.ggml_backend_tensor_get(address, copy.ctypes.data, 0, copy.nbytes)
    return copy
