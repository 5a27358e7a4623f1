"""Make a folder that holds edgesppo and a Python of its own, for machines that have none.

    python -m edgesppo.dev.bundle OUT [--archive]      (the extra `bundle`)

OUT/edgesppo/edgesppo is the program, and the folder can be moved anywhere. It runs on machines of
the kind that it is made on, with the same processor's features and a C library as new as here.
With --archive, OUT/edgesppo-VERSION-MACHINE.tar.gz is made of it, too. PyInstaller collects what is
needed; numba, which makes conversions faster, is left out for its 170 MB.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from edgesppo._version import __version__
from edgesppo.dev.bootstrap_links import CHECKOUT
from edgesppo.system.paths import PACKAGE

_ENTRY = Path(__file__).with_name("bundle_entry.py")
# Imported by name at run time, or data that lies beside a module.
_WHOLE = ("edgesppo", "edgesppo_convert", "llama_cpp", "uvicorn", "prompt_toolkit", "pygments")
_METADATA = ("edgesppo", "llama-cpp-python", "huggingface-hub")
_LEFT_OUT = (
    *("numba", "llvmlite", "matplotlib", "pandas", "ray", "torch", "transformers", "scipy"),
    *("pytest", "hypothesis", "IPython", "tkinter", "setuptools", "pip", "PIL"),
    *("edgesppo.dev", "tokenizers", "sentencepiece", "openai", "ollama", "mypy"),
)


def main() -> int:
    """Make the folder, try it, and pack it if that was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--archive", action="store_true")
    options = parser.parse_args()
    try:
        program = make(options.out)
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        with tempfile.TemporaryDirectory() as home:  # an answer needs all that is in it
            subprocess.run(
                [program, "run", "demo", "Hi", "--max-tokens", "4"],
                env={**os.environ, "EDGESPPO_HOME": home},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
            )
    except (subprocess.CalledProcessError, OSError) as error:
        output = getattr(error, "stderr", None) or ""
        print(f"{output[-3000:]}\nthe bundle was not made: {error}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in program.parent.rglob("*") if file.is_file())
    print(f"{program.parent}: {version.stdout.strip()}, {size / 1e6:,.0f} MB")
    if options.archive:
        print(pack(program.parent, options.out))
    return 0


def make(out: Path) -> Path:
    """Make the folder anew; the path of its program. Raises CalledProcessError, OSError.

    A folder of that name is replaced only if it is an earlier bundle.
    """
    folder = out / "edgesppo"
    if folder.exists() and not (folder / "_internal").is_dir():
        raise FileExistsError(f"{folder} is there, and is no bundle; give another OUT")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=out) as work:
        _collect(Path(work))
        shutil.rmtree(folder, ignore_errors=True)
        (Path(work) / "edgesppo").rename(folder)
    suffix = ".exe" if sys.platform == "win32" else ""
    return folder / f"edgesppo{suffix}"


def _collect(work: Path) -> None:
    """Have PyInstaller make the folder `edgesppo` in an empty one."""
    help_pages = "edgesppo/help/examples"
    words = ["--noconfirm", "--onedir", "--name", "edgesppo", "--log-level", "ERROR"]
    words += [f"--distpath={work}", f"--workpath={work / 'work'}", f"--specpath={work / 'work'}"]
    words += [f"--paths={_packages()}", "--collect-binaries", "llama_cpp"]
    words += [f"--add-data={CHECKOUT / 'models.lock'}:edgesppo/pins"]
    words += [f"--add-data={CHECKOUT / help_pages}:{help_pages}"]
    for name in _WHOLE:
        words += ["--collect-submodules", name, "--collect-data", name]
    for name in _METADATA:
        words += ["--copy-metadata", name]
    for name in _LEFT_OUT:
        words += ["--exclude-module", name]
    command = [sys.executable, "-m", "PyInstaller", *words, str(_ENTRY)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    # Only the metadata of what is there, or `doctor` would tell of more.
    for name in _LEFT_OUT:
        for folder in (work / "edgesppo").rglob(f"{name}-*.dist-info"):
            shutil.rmtree(folder)


def _packages() -> Path:
    """A folder where our packages are under the names that they are imported by."""
    links = Path(sys.prefix) / ".edgesppo-packages"  # of an editable installation
    return links if links.exists() else PACKAGE.parent


def pack(folder: Path, out: Path) -> Path:
    """An archive of the folder."""
    path = out / f"edgesppo-{__version__}-{platform.system().lower()}-{platform.machine()}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname="edgesppo")
    return path


if __name__ == "__main__":
    sys.exit(main())
