"""The time to start and the memory, beside `Llama` and llama-server; the time of an import.

A program that imports us is compared to one that uses `Llama`, our server to llama-server.

    python -m tests.benchmarks.footprint EDGE.gguf [--standard STANDARD.gguf]

Both files hold the same weights: EDGE in the order that `convert` writes by default, STANDARD in
llama.cpp's own; ours runs both with the settings that are fastest for EDGE. Memory is the
proportional share (PSS) after loading, for 2,048 tokens of context; files are in the page cache.
Linux only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks import contestants, files, peers, processes
from tests.benchmarks.http_servers import free_port, started
from tests.benchmarks.record import Measure, Report, argument_parser, in_turn

if TYPE_CHECKING:
    import argparse

N_CTX = 2048
# What ours may take of what llama.cpp says of its own buffers.
REPORTED = 1.03
_OURS = """
import json, sys, time
started = time.perf_counter()
import edgesppo
from edgesppo.llama import library
library.start()
lines = []
listen = library.C.llama_log_callback(lambda _level, text, _data: lines.append(text.decode()))
library.C.llama_log_set(listen, None)
model = edgesppo.load(sys.argv[1], n_ctx=2048, n_threads=int(sys.argv[2]), gpu="off")
loaded = time.perf_counter()
from tests.benchmarks.processes import proportional
print(json.dumps({"load": loaded - started, "memory": proportional(), "log": "".join(lines)}))
"""


def main() -> None:
    """Measure imports, then the files."""
    parser = argument_parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--standard", type=Path, help="the same weights in llama.cpp's order")
    options = parser.parse_args()
    report = Report(options)
    imports(report, options.rounds)
    files.tuned(options.file, options.standard)
    memory(report, options)


def imports(report: Report, rounds: int) -> None:
    """Compare `import edgesppo` and `edgesppo --help` to `import click`, and to `llama_cpp`."""
    programs = {
        "import edgesppo": ["-c", "import edgesppo"],
        "edgesppo --help": ["-m", "edgesppo", "--help"],
        "import click": ["-c", "import click"],
        "import llama_cpp": ["-c", "import llama_cpp"],
    }
    found = in_turn({name: partial(_run, words) for name, words in programs.items()}, rounds)
    click, library = found["import click"]["s"], found["import llama_cpp"]["s"]
    for name in ("import edgesppo", "edgesppo --help"):
        note = "click is the library of the command line"
        report.compare(name, "s", found[name]["s"], "import click", click, rival=False, note=note)
    report.compare("import", "s", found["import edgesppo"]["s"], "import llama_cpp", library)


def _run(words: list[str]) -> dict[str, float]:
    begun = time.perf_counter()
    environment = processes.with_variables()
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)
    return {"s": time.perf_counter() - begun}


def memory(report: Report, options: argparse.Namespace) -> None:
    """Compare load time and memory after loading."""
    build, work = peers.pip_build(), (options.threads, 32, 2, N_CTX)
    given = {"edge": options.file, "standard": options.standard}
    measures: dict[str, Measure] = {}
    for layout, file in given.items():
        if file is not None:
            processes.warm(file)
            measures[f"ours, {layout}"] = partial(our_load, file, options.threads)
            measures[f"Llama, {layout}"] = partial(contestants.llama, build, file, *work)
            measures[f"serve, {layout}"] = partial(server_load, file, options.threads)
            measures[f"llama-server, {layout}"] = partial(llama_server_load, file, options.threads)
    found = in_turn(measures, options.rounds)
    names = ("import and load", "memory after loading"), ("a server's start", "a server's memory")
    peers_of = {"ours, edge": ("ours", "Llama"), "serve, edge": ("llama-server",)}
    for (mine, kinds), (load, memory) in zip(peers_of.items(), names, strict=True):
        for peer, figures in found.items():
            if peer != mine and peer.partition(",")[0] in kinds:
                report.compare(load, "s", found[mine]["load"], peer, figures["load"])
                sizes = ([n / 1e6 for n in found[one]["memory"]] for one in (mine, peer))
                report.compare(memory, "MB", next(sizes), peer, next(sizes))
    ours = found["ours, edge"]
    mine, said = ([n / 1e6 for n in ours[key]] for key in ("memory", "reported"))
    report.compare(
        *("memory after loading", "MB", mine, "what llama.cpp reports of its buffers", said),
        goal=REPORTED,
        rival=False,
    )


def our_load(file: Path, threads: int) -> dict[str, float]:
    """Seconds to load, bytes of PSS after it, and of the buffers that llama.cpp reports."""
    done = processes.run([sys.executable, "-c", _OURS, file, threads])
    found = json.loads(done.output.splitlines()[0])
    sizes = re.findall(r"buffer size = +([\d.]+) MiB", found.pop("log"))
    return {**found, "reported": sum(map(float, sizes)) * 2**20}


def server_load(file: Path, threads: int) -> dict[str, float]:
    """Seconds until `edgesppo serve` answers, and bytes of PSS then."""
    command = [sys.executable, "-m", "edgesppo", "serve", file, "--threads", threads]
    return _server([*command, "--n-ctx", N_CTX, "--parallel", 1, "--gpu", "off"])


def llama_server_load(file: Path, threads: int) -> dict[str, float]:
    """The same of llama-server."""
    command = [peers.pip_build().tool("llama-server"), "-m", file, "-t", threads, "-c", N_CTX]
    return _server([*command, "-np", 1])


def _server(command: list[Any]) -> dict[str, float]:
    port = free_port()
    with started([str(word) for word in (*command, "--port", port)], port) as server:
        return {"load": server.load_s, "memory": server.memory()}


if __name__ == "__main__":
    main()
