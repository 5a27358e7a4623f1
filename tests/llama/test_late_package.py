"""A package's modules are imported without its `__init__`, which runs once something is asked."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from edgesppo.llama import late_package

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "edgesppo_test_late"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package whose `__init__` imports one of its modules, and notes that it ran."""
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "low.py").write_text("answer = 42\n")
    (folder / "__init__.py").write_text(
        "import sys\nsys.ran.append(__name__)\nfrom .low import *\nversion = '1'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "ran", [], raising=False)
    yield NAME
    for name in (NAME, f"{NAME}.low"):
        sys.modules.pop(name, None)


def test_a_module_is_imported_without_its_package(package: str) -> None:
    late_package.register(package, lambda: None)
    assert importlib.import_module(f"{package}.low").answer == 42
    assert vars(sys)["ran"] == []


def test_the_package_is_whole_for_whoever_imports_it_afterwards(package: str) -> None:
    late_package.register(package, lambda: vars(sys)["ran"].append("after"))
    low = importlib.import_module(f"{package}.low")
    found: dict[str, object] = {}
    exec(f"from {package} import version, low, answer\nfrom {package} import *", found)
    assert found["version"] == "1"
    assert found["answer"] == 42
    assert found["low"] is low
    assert vars(sys)["ran"] == [package, "after"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = sys.modules[package].nothing
    assert vars(sys)["ran"] == [package, "after"]


def test_a_package_that_was_imported_already_is_left_alone(package: str) -> None:
    before = importlib.import_module(package)
    late_package.register(package, lambda: None)
    assert sys.modules[package] is before
    assert vars(sys)["ran"] == [package]


def test_a_package_that_is_not_there_is_an_import_error_as_ever() -> None:
    late_package.register("edgesppo_test_absent", lambda: None)
    assert "edgesppo_test_absent" not in sys.modules
