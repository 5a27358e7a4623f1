"""Update the shipped demo's entry in models.lock: `python -m edgesppo.dev.lock_demo`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edgesppo.lockfile import toml
from edgesppo.lockfile.entries import Lock, PinnedModel
from edgesppo.lockfile.files import describe_files
from edgesppo.system.paths import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILES = (".json", ".model", ".safetensors")


def demo_entry() -> PinnedModel:
    """The entry for the demo's files as they are now."""
    folder = PACKAGE / "demo"
    names = sorted(path.name for path in folder.iterdir() if path.suffix in _FILES)
    return PinnedModel(
        name="demo",
        kind="checkpoint",
        shipped="edgesppo/demo",
        license="Apache-2.0",
        description="A tiny Gemma-2 trained for this package, to try everything at once",
        files=describe_files(folder, names),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the entry to models.lock; there are no arguments but --help."""
    argparse.ArgumentParser(
        prog="python -m edgesppo.dev.lock_demo",
        description=f"Update the sizes and hashes of the shipped demo in {toml.path()}.",
    ).parse_args(arguments)
    lock = Lock({**toml.read().models, "demo": demo_entry()})
    toml.path().write_text(toml.render(lock), encoding="utf-8")
    print(f"wrote {toml.path()}")


if __name__ == "__main__":
    main()
