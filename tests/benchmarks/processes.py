"""Run a program to its end, and say what it took: time, memory, bytes written. Linux only."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_INTERVAL = 0.05  # seconds between looks at a process's memory
_TAIL = 3000
_NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True)
class Run:
    """What a program printed, and the resources that it used."""

    output: str
    seconds: float
    cpu: float  # seconds on all cores together, which depend little on the load of the machine
    written: int  # bytes that it caused to be written to disk, as the system counts them
    anonymous: int  # most bytes of anonymous memory
    peak: int  # most bytes of resident memory, mapped files included


def run(command: Sequence[str | Path | int], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command and measure it. Raises SystemExit with the end of its output if it fails."""
    words = [str(word) for word in command]
    most = 0
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            words, stdout=out, stderr=errors, env=with_variables(environment)
        )
        while not _is_over(process.pid):
            most = max(most, anonymous(process.pid))
            time.sleep(_INTERVAL)
        seconds, n_written = time.perf_counter() - started, _written(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        text = _read(out) + _read(errors)
    if process.returncode:
        raise SystemExit(f"{' '.join(words[:6])} failed:\n{text[-_TAIL:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(text, seconds, cpu, n_written, most, usage.ru_maxrss << 10)


def figures_of(program: str, what: object, environment: Mapping[str, str] | None = None) -> Any:
    """What a Python program prints as JSON, run by itself with `what` as JSON for an argument."""
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(what)],
        env=with_variables(environment),
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


@contextmanager
def busy(n: int) -> Iterator[None]:
    """Keep `n` processors busy with other programs meanwhile; they end with this one."""
    program = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    burners = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(n)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def with_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a program that is measured: this one's, and those given.

    Python keeps the bytecode of what it imports, as it does where a package is installed, even if
    it is told not to here: else a checkout is compiled anew at each start, unlike its peers.
    """
    kept = {name: value for name, value in os.environ.items() if name != _NO_BYTECODE}
    return {**kept, **(environment or {})}


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _is_over(process: int) -> bool:
    """Whether the process has ended; it is not reaped, so that its counters stay readable."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _written(process: int) -> int:
    found = re.search(r"^write_bytes: (\d+)$", Path(f"/proc/{process}/io").read_text(), re.M)
    return int(found[1]) if found else 0


def anonymous(process: int) -> int:
    """Bytes of anonymous memory that a process holds now; 0 if it is gone."""
    return _status_bytes(Path(f"/proc/{process}/status"), "RssAnon")


def proportional(process: int | str = "self") -> int:
    """A process's share of memory now: pages that several processes map count once (PSS)."""
    return _status_bytes(Path(f"/proc/{process}/smaps_rollup"), "Pss")


def main_thread_cpu(process: int) -> float:
    """CPU seconds of a process's first thread until now."""
    nanoseconds = Path(f"/proc/{process}/task/{process}/schedstat").read_text().split()[0]
    return int(nanoseconds) / 1e9


def _status_bytes(file: Path, name: str) -> int:
    with suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB", file.read_text(), re.M)
        if found:
            return int(found[1]) << 10
    return 0


def warm(path: Path) -> None:
    """Read a file, or the weights of a folder, into the page cache; some machines drop it soon."""
    for file in [path] if path.is_file() else path.glob("*.safetensors"):
        with file.open("rb") as opened:
            while opened.read(1 << 24):
                pass
