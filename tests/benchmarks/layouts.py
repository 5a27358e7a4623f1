"""Measure how the order of tensors in a GGUF file affects resident memory.

    python -m tests.benchmarks.layouts CHECKPOINT [--work FOLDER]

Converts one checkpoint in both layouts, and loads each file in a separate process with the
installed llama.cpp and its own defaults. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from edgesppo_convert import convert

LAYOUTS = ("standard", "edge")
PROGRAM = """
import sys, llama_cpp
parameters = llama_cpp.llama_model_default_params()
parameters.use_mmap = True
model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), parameters)
assert model
settings = llama_cpp.llama_context_default_params()
settings.n_ctx, settings.n_outputs_max, settings.swa_full = 2048, 1, False
context = llama_cpp.llama_init_from_model(model, settings)
assert context
print(open("/proc/self/status").read())
"""


def resident(path: Path) -> dict[str, int]:
    """Bytes of memory after loading: resident in total (VmRSS), and anonymous (RssAnon)."""
    command = [sys.executable, "-c", PROGRAM, str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    status = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: int(status[name].split()[0]) << 10 for name in ("VmRSS", "RssAnon")}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work", type=Path, help="where the two files go [a temporary folder]")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        for layout in LAYOUTS:
            path = Path(folder) / f"{layout}.gguf"
            convert(options.checkpoint, path, layout=layout)
            found[layout] = resident(path)
            size, (rss, anonymous) = path.stat().st_size, found[layout].values()
            print(
                f"{layout:10} {size / 1e6:9,.0f} MB on disk {rss / 1e6:9,.0f} MB resident, "
                f"{anonymous / 1e6:,.0f} of them anonymous"
            )
    print(f"ratio {found['edge']['VmRSS'] / found['standard']['VmRSS']:.3f}")


if __name__ == "__main__":
    main()
