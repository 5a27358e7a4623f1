"""A package whose modules can be imported before its `__init__` has run.

llama_cpp's `__init__` imports what llama.cpp's own chat needs (a template engine, caches), which
takes several times as long as its low-level module, and is of no use here.
"""

from __future__ import annotations

import sys
import threading
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class LatePackage(ModuleType):
    """A package in `sys.modules` whose `__init__` runs when a name of it is first asked for."""

    _after: Callable[[], None]
    _running: threading.RLock
    _has_run: bool

    def __getattr__(self, name: str) -> Any:
        with self._running:
            if not self._has_run:
                self._has_run = True  # what it imports may ask for its names
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                try:
                    self.__spec__.loader.exec_module(self)
                except BaseException:
                    self._has_run = False
                    raise
                finally:
                    self._after()
        return super().__getattribute__(name)


def register(name: str, after: Callable[[], None]) -> None:
    """Let the modules of package `name` be imported without it, unless it has been imported.

    `after` is called when its `__init__` has run after all. Does nothing where there is no such
    package: importing it then fails as ever.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None:
        return
    package = module_from_spec(spec)
    vars(package).update(_after=after, _running=threading.RLock(), _has_run=False)
    package.__class__ = LatePackage
    sys.modules[name] = package
