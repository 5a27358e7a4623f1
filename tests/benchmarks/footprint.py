"""Measure the footprint of edgesppo: resident memory after loading, and import time.

    python -m tests.benchmarks.footprint FILE.gguf [--standard FILE.gguf]

Each program runs in a separate process. The peer is llama-cpp-python's `Llama`, on the same file
and on the same weights in llama.cpp's own order. Linux only.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

_RSS_OURS = """
import sys, edgesppo
from edgesppo.llama import library
library.start()
listen = library.C.llama_log_callback(lambda _l, text, _d: print(text.decode(), end=""))
library.C.llama_log_set(listen, None)
model = edgesppo.load(sys.argv[1], n_ctx=2048, n_threads=2, gpu="off", tune="off")
print(open("/proc/self/status").read())
"""
_RSS_LLAMA = """
import sys
from llama_cpp import Llama
llama = Llama(sys.argv[1], n_ctx=2048, n_threads=2, verbose=False)
print(open("/proc/self/status").read())
"""


def memory(path: Path, standard: Path | None) -> None:
    """Compare resident memory after loading to llama.cpp's own report, and to `Llama`."""
    ours, log = _rss(_RSS_OURS, path)
    sizes = [float(size) for size in re.findall(r"buffer size = +([\d.]+) MiB", log)]
    reported = sum(sizes) * 2**20
    print(
        f"  ours {ours / 1e6:,.0f} MB; llama.cpp reports buffers of {reported / 1e6:,.0f} MB, "
        f"ratio {ours / reported:.3f}"
    )
    for name, file in (("this file", path), ("llama.cpp's order of it", standard)):
        if file is not None:
            peer, _ = _rss(_RSS_LLAMA, file)
            print(f"  Llama, {name}: {peer / 1e6:,.0f} MB, ratio {ours / peer:.3f}")


def _rss(program: str, path: Path) -> tuple[int, str]:
    """Resident bytes of a program at its end, and its output."""
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (line,) = [text for text in done.stdout.splitlines() if text.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024, done.stdout


def imports() -> None:
    """Compare the time of `import edgesppo` and `edgesppo --help` to `import click`."""
    programs = {
        "import click": ["-c", "import click"],
        "import edgesppo": ["-c", "import edgesppo"],
        "edgesppo --help": ["-m", "edgesppo", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(15):
        for name, arguments in programs.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    base = statistics.median(seconds["import click"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"  {name}: {middle * 1000:.0f} ms, ratio {middle / base:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--standard", type=Path, help="the same weights in llama.cpp's own order")
    options = parser.parse_args()
    print("import")
    imports()
    print("memory")
    memory(options.file, options.standard)


if __name__ == "__main__":
    main()
