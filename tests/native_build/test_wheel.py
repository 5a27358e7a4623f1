"""The wheel of llama.cpp that the set-up compiles."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from edgesppo.llama import build_info
from edgesppo.native_build import wheel
from edgesppo.native_build.ziglang import Ziglang

if TYPE_CHECKING:
    from pathlib import Path


def test_an_installed_library_tells_which_compiler_made_it(tmp_path: Path) -> None:
    identity = Ziglang().identity
    made, library = tmp_path / "some.whl", "llama_cpp/lib/libggml-cpu.so"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(library, b"\x7fELF")
    wheel.note_compiler(made, identity)
    with zipfile.ZipFile(made) as archive:
        archive.extractall(tmp_path / "installed")
    name, version = build_info.compiler_of(tmp_path / "installed" / library)
    assert f"{name} {version}" == identity
    assert build_info.compiler_of(tmp_path / "none" / "libggml-cpu.so") == ("", "")
