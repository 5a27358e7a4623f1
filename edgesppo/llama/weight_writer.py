"""Overwrite weights of a loaded model, and time the products with them.

For trying quantisations without writing a file for each. The model must be loaded without mmap and
without repacking, so that its weights are in this process' own memory, as they are in the file.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from edgesppo.errors import NativeError
from edgesppo.llama.graph_observer import Tensor, weight_name
from edgesppo.llama.library import C, ggml_base

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WEIGHT = ".weight"


class WeightWriter:
    """Finds the weights of a model while a context computes, and overwrites them.

    An observer of a context: after its first batch all weights are known. A tied output matrix may
    be there twice; both are written.
    """

    def __init__(self) -> None:
        self._addresses: dict[str, set[int]] = defaultdict(set)
        self.callback = C.ggml_backend_sched_eval_callback(self._call)

    def begin(self) -> None:
        """Nothing is to be done before a batch."""

    def check(self) -> None:
        """Nothing can have gone wrong in a batch."""

    def write(self, weight: str, data: NDArray[np.uint8], offset: int) -> None:
        """Overwrite bytes of a weight, from `offset` on."""
        addresses = self._addresses.get(weight)
        if not addresses:
            raise NativeError(f"the weight {weight} was not used, so it cannot be overwritten")
        for address in addresses:
            _library().ggml_backend_tensor_set(address, data.ctypes.data, offset, data.nbytes)

    def _call(self, address: int, ask: bool, _data: object) -> bool:
        if ask:
            for source in Tensor.from_address(address).src[:2]:
                if source:
                    name = weight_name(Tensor.from_address(source).name)
                    if name.endswith(_WEIGHT):
                        self._addresses[name].add(source)
        return not ask


class ProductTimer:
    """Times the product with every weight while a context computes; `seconds` by weight.

    An observer of a context. Each product is waited for alone, which takes some microseconds.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._started = 0.0
        self.callback = C.ggml_backend_sched_eval_callback(self._call)

    def begin(self) -> None:
        """Nothing is to be done before a batch."""

    def check(self) -> None:
        """Nothing can have gone wrong in a batch."""

    def _call(self, address: int, ask: bool, _data: object) -> bool:
        node: Any = Tensor.from_address(address)
        source = node.src[0]
        name = weight_name(Tensor.from_address(source).name) if source else ""
        if not ask:
            self.seconds[name].append(time.perf_counter() - self._started)
            return True
        # Nodes before it are computed alone, too, so that only its own time is measured.
        self._started = time.perf_counter()
        return True


@functools.cache
def _library() -> ctypes.CDLL:
    library = ggml_base()
    sizes = [ctypes.c_size_t] * 2
    library.ggml_backend_tensor_set.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *sizes]
    library.ggml_backend_tensor_set.restype = None
    return library
