"""Race the converter against llama.cpp's two steps on one checkpoint, in one run.

    python -m tests.benchmarks.convert --python PYTHON [--sources FOLDER] [--work FOLDER]

Theirs is `convert_hf_to_gguf.py` to bf16, which needs an interpreter with torch, transformers and
sentencepiece, then `llama-quantize` to Q4_K_M, built here from llama-cpp-python's source
distribution. Both get the same number of threads, the same disk, and a checkpoint in the page
cache. Only edgesppo waits until its file is synced to disk. The promised limits are checked; a
broken one makes the exit code 1. Linux only.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.checkpoints import SHAPES, write_checkpoint

RELEASE = "llama-cpp-python==0.3.36"
# The limits for edgesppo: its time with each kind of kernels and its bytes written, as shares of
# llama.cpp's, and its memory in bytes.
FAST_TIME, GGML_TIME, WRITTEN, MEMORY = 0.25, 0.75, 0.26, 700e6
INTERVAL = 0.05  # seconds between looks at a process's memory
CMAKE = [
    *("-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF"),
    *("-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_OPENSSL=OFF"),
]


@dataclass(frozen=True)
class Run:
    """The resources that one process used."""

    name: str
    seconds: float
    cpu: float  # seconds on all cores together, which depend little on the load of the machine
    written: int  # bytes written, as counted by the system
    memory: int  # most bytes of anonymous memory

    def __str__(self) -> str:
        return (
            f"{self.name:32}{self.seconds:8.1f} s{self.cpu:8.1f} s of CPU"
            f"{self.written / 1e6:8,.0f} MB written{self.memory / 1e6:8,.0f} MB of memory"
        )


def measure(name: str, command: list[str | Path], **environment: str) -> Run:
    """Run a command and measure it."""
    os.sync()
    words = [str(word) for word in command]
    started, most = time.monotonic(), 0
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **environment})
        before = os.times()
        while not is_over(process.pid):
            most = max(most, anonymous(process.pid))
            time.sleep(INTERVAL)
        seconds, bytes_written = time.monotonic() - started, written(process.pid)
        process.wait()
        after = os.times()
        if process.returncode:
            log.seek(0)
            sys.exit(f"{' '.join(words)}: {log.read()[-4000:].decode(errors='replace')}")
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    run = Run(name, seconds, cpu, bytes_written, most)
    sys.stdout.write(f"{run}\n")
    sys.stdout.flush()
    return run


def is_over(process: int) -> bool:
    """Whether the process has ended; it is not reaped, so that its counters stay readable."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def written(process: int) -> int:
    """Bytes that all threads of the process caused to be written to disk."""
    found = re.search(r"^write_bytes: (\d+)$", Path(f"/proc/{process}/io").read_text(), re.M)
    if found is None:
        sys.exit("the kernel does not count what a process writes")
    return int(found[1])


def anonymous(process: int) -> int:
    """Bytes of anonymous memory that the process holds."""
    with suppress(OSError):
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        if found:
            return int(found[1]) << 10
    return 0


def download_sources(folder: Path) -> Path:
    """llama-cpp-python's source distribution, unpacked."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-binary", ":all:", "-d", folder, RELEASE], check=True)
    with tarfile.open(next(folder.glob("llama_cpp_python-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.glob("llama_cpp_python-*") if path.is_dir())


def build_quantizer(sources: Path, folder: Path) -> Path:
    """Build llama-quantize if needed; return its path."""
    subprocess.run(["cmake", "-S", sources, "-B", folder, *CMAKE], check=True, stdout=sys.stderr)
    build = ["cmake", "--build", folder, "--target", "llama-quantize", "--parallel"]
    subprocess.run([*build, str(os.cpu_count())], check=True, stdout=sys.stderr)
    return folder / "bin" / "llama-quantize"


def race_theirs(options: argparse.Namespace, checkpoint: Path, work: Path) -> list[Run]:
    """Run llama.cpp's two steps."""
    sources = options.sources or download_sources(work)
    llama_cpp = sources / "vendor" / "llama.cpp"
    quantizer = build_quantizer(llama_cpp, work / "build")
    plain, output = work / "bf16.gguf", work / "theirs.gguf"
    script = llama_cpp / "convert_hf_to_gguf.py"
    first: list[str | Path] = [options.python, script, checkpoint, "--outtype", "bf16"]
    output.unlink(missing_ok=True)
    warm(checkpoint)
    runs = [measure("convert_hf_to_gguf.py to bf16", [*first, "--outfile", plain])]
    second: list[str | Path] = [quantizer, plain, output, "Q4_K_M", str(options.threads)]
    runs.append(measure("llama-quantize to Q4_K_M", second))
    plain.unlink()
    return runs


def race_ours(options: argparse.Namespace, checkpoint: Path, work: Path) -> list[Run]:
    """Run edgesppo with an empty cache of compiled kernels, a full one, and without kernels."""
    output = work / "ours.gguf"
    command: list[str | Path] = [sys.executable, "-m", "edgesppo", "convert", checkpoint]
    command += ["-o", output, "--force", "--threads", str(options.threads), "--kernels"]
    names = {
        "edgesppo, fast, compiling them": "fast",
        "edgesppo, fast": "fast",
        "edgesppo, ggml": "ggml",
    }
    runs = []
    with tempfile.TemporaryDirectory() as cache:
        for name, kernels in names.items():
            output.unlink(missing_ok=True)
            warm(checkpoint)
            runs.append(measure(name, [*command, kernels], NUMBA_CACHE_DIR=cache))
    return runs


def warm(folder: Path) -> None:
    """Read the checkpoint into the page cache; some machines drop it within a minute."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def report(theirs: list[Run], ours: list[Run]) -> None:
    """Print each run of edgesppo as a share of llama.cpp's total."""
    seconds = sum(run.seconds for run in theirs)
    cpu = sum(run.cpu for run in theirs)
    written = sum(run.written for run in theirs)
    memory = max(run.memory for run in theirs)
    sys.stdout.write(f"{Run('llama.cpp, both steps', seconds, cpu, written, memory)}\n")
    for run in ours:
        sys.stdout.write(
            f"{run.name:32}{run.seconds / seconds:8.3f} of the time{run.cpu / cpu:8.3f} of the CPU"
            f"{run.written / written:8.3f} of the bytes{run.memory / memory:8.3f} of the memory\n"
        )


def keeps_promises(theirs: list[Run], ours: list[Run]) -> bool:
    """Print whether each promise is kept; ratios are checked only if llama.cpp ran."""
    _, fast, ggml = ours
    promises = [(f"memory of {run.name}", run.memory, MEMORY) for run in ours]
    if theirs:
        seconds, written = (
            sum(getattr(run, what) for run in theirs) for what in ("seconds", "written")
        )
        promises += [
            ("time with the fast kernels", fast.seconds / seconds, FAST_TIME),
            ("time with ggml's", ggml.seconds / seconds, GGML_TIME),
            ("bytes written", max(run.written for run in ours) / written, WRITTEN),
        ]
    for what, found, most in promises:
        verdict = "PASS" if found <= most else "FAIL"
        sys.stdout.write(f"{verdict} {what}: {found:,.3g}, at most {most:,.3g}\n")
    return all(found <= most for _, found, most in promises)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="2b")
    parser.add_argument(
        "--checkpoint", type=Path, help="use this checkpoint instead of a random one"
    )
    parser.add_argument("--sources", type=Path, help="unpacked llama-cpp-python [download]")
    parser.add_argument(
        "--python", default=sys.executable, help="an interpreter with torch and transformers"
    )
    parser.add_argument("--work", type=Path, help="folder for files [a temporary folder]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-ours", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    work = options.work or Path(tempfile.mkdtemp(prefix="edgesppo-benchmark-"))
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = options.checkpoint or work / options.shape
    if not checkpoint.exists():
        write_checkpoint(checkpoint, SHAPES[options.shape], shards=4)
    try:
        theirs = [] if options.only_ours else race_theirs(options, checkpoint, work)
        ours = race_ours(options, checkpoint, work)
        if theirs:
            report(theirs, ours)
    finally:
        if options.work is None:
            shutil.rmtree(work)
    sys.exit(0 if keeps_promises(theirs, ours) else 1)


if __name__ == "__main__":
    main()
