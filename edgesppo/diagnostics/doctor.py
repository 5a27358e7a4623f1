"""`edgesppo doctor`: check this machine and installation, and say how to fix what is wrong.

It opens no connection, loads no model and changes nothing. A check that fails with an error is a
finding, too. The library is loaded in a separate process, which a wrong build would kill.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesppo.diagnostics import library, settings
from edgesppo.diagnostics.finding import FAIL, OK, WARN, Finding
from edgesppo.errors import EdgesppoError
from edgesppo.gguf.gemma2 import Summary
from edgesppo.hub.client import offline
from edgesppo.lockfile import layers, toml
from edgesppo.planning import memory_plan, run_config
from edgesppo.store import gc, layout, verify
from edgesppo.store.repair import merge_again
from edgesppo.system import cgroup, hardware, load
from edgesppo.system.paths import cache_dir, nearest_existing
from edgesppo.system.sanitize import one_line
from edgesppo.system.shell import shell_word
from edgesppo.system.units import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgesppo.lockfile.entries import PinnedModel
    from edgesppo.planning.memory_plan import MemoryPlan
    from edgesppo.store.verify import ExpectedFile

# A 9B model as Q4_K_M: the bytes of its weights, and its shape.
_9B_WEIGHTS = 5_755_000_832
_9B = {
    "block_count": 42,
    "embedding_length": 3584,
    "feed_forward_length": 14336,
    "attention.head_count": 16,
    "attention.head_count_kv": 8,
    "attention.key_length": 256,
    "attention.value_length": 256,
    "attention.sliding_window": 4096,
    "context_length": 8192,
}
_REAL_DISK = 10_800_000_000  # bytes that it takes while it is fetched and converted
_PYTHON = "Programming Language :: Python :: "
_FAULTS = (
    *(EdgesppoError, OSError, RuntimeError, ImportError, ValueError),
    subprocess.SubprocessError,
)
_MORE_CORES = (
    "a container's quota or a CPU affinity limits this process; to allow more: docker run --cpus N,"
    " or taskset -c 0-N"
)
_RM = "del" if os.name == "nt" else "rm"
_AGAIN = "fix what the message names, then run again: edgesppo doctor"


def examine() -> list[Finding]:
    """Run all checks; the findings are in the order to read them."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        library.build,
        _kernels,
        _processors,
        _load,
        _memory,
        _disk,
        _locks,
        _models,
        settings.contexts,
        _links,
        _rubbish,
        _network,
    ]
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except _FAULTS as error:
            text = one_line(str(error))
            if text not in [finding.text for finding in found]:  # a bad lock fails three checks
                found.append(Finding(check.__name__.strip("_"), FAIL, text, _AGAIN))
    return found


def _python() -> Iterator[Finding]:
    known = platform.python_version().rpartition(".")[0] in _tested_pythons()
    text = f"{platform.python_version()}, {platform.platform()}"
    advice = "edgesppo is not tested with this version; install it with Python 3.12"
    yield Finding("python", OK if known else WARN, text, None if known else advice)


def _tested_pythons() -> list[str]:
    classifiers = importlib.metadata.metadata("edgesppo").get_all("Classifier") or []
    return [text.removeprefix(_PYTHON) for text in classifiers if text.startswith(_PYTHON)]


def _kernels() -> Iterator[Finding]:
    if hardware.is_arm():
        yield Finding("kernels", OK, "conversions take llama.cpp's own: numba's make other bytes")
        return
    try:
        version = importlib.metadata.version("numba")
    except importlib.metadata.PackageNotFoundError:
        advice = 'conversions take about four times as long; in the clone, pip install ".[fast]"'
        yield Finding("kernels", WARN, "numba is not installed", advice)
        return
    yield Finding("kernels", OK, f"numba {version} compiles the fast kernels for conversions")


def _processors() -> Iterator[Finding]:
    allowed, present = hardware.usable_cpus(), os.cpu_count() or 1
    text = f"{hardware.cores()} cores, {allowed} threads for this process"
    limited = allowed < present
    text += f" of {present}" if limited else ""
    advice = _MORE_CORES if limited else None
    yield Finding("cores", WARN if limited else OK, text, advice)
    if reasons := hardware.throttled():
        advice = "check the power supply and the cooling, then run: vcgencmd get_throttled"
        yield Finding("throttle", WARN, ", ".join(reasons), advice)


def _load() -> Iterator[Finding]:
    share = load.others()
    if share is None:
        yield Finding("load", OK, "this system does not tell what other programs use")
        return
    busy = share > load.BUSY
    text = f"other programs use {share:.0%} of the processors"
    advice = "close them, or give the model fewer threads (--threads); else answers are slower"
    yield Finding("load", WARN if busy else OK, text, advice if busy else None)


def _memory() -> Iterator[Finding]:
    total, limit = hardware.total_memory(), cgroup.memory_limit()
    plan = _plan_9b()
    free = "unknown" if plan.available is None else size(plan.available)
    text = f"{size(total)}, {free} free for this process"
    if limit is not None and limit < total:
        text += f", a container's limit of {size(limit)}"
    advice = f"a 9B model needs {size(plan.total)} for {plan.n_ctx:,} tokens: {plan.advice()}"
    yield Finding("memory", OK if plan.fits else WARN, text, None if plan.fits else advice)


def _plan_9b() -> MemoryPlan:
    """The memory of a 9B model with the settings that take the least, and its whole context."""
    keys: dict[str, Any] = {f"gemma2.{key}": value for key, value in _9B.items()}
    keys["tokenizer.ggml.tokens"] = 256_000
    return memory_plan.plan_memory(
        Summary(Path("9b.gguf"), keys, 0, _9B_WEIGHTS, _9B_WEIGHTS, (), {}),
        run_config.low_memory_config(),
        n_ctx=_9B["context_length"],
        n_seqs=1,
        n_batch=run_config.DEFAULT_BATCH,
        cache_type="f16",
    )


def _disk() -> Iterator[Finding]:
    folder = cache_dir()
    existing = nearest_existing(folder)
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        advice = "set EDGESPPO_HOME to a folder that you can write to"
        yield Finding("disk", FAIL, f"{folder} is not writable", advice)
        return
    free = shutil.disk_usage(existing).free
    little = free < _REAL_DISK
    advice = (
        f"converting the 9B model takes {size(_REAL_DISK)}; free some space with edgesppo gc, or"
        " set EDGESPPO_HOME to a folder on another disk"
    )
    yield Finding(
        "disk", WARN if little else OK, f"{size(free)} free in {folder}", advice if little else None
    )


def _locks() -> Iterator[Finding]:
    for path in layers.layers():
        if path.exists():
            entries = len(toml.read(path).models)
            yield Finding("lock", OK, f"{path}: {entries} models")
    toml.read()


def _models() -> Iterator[Finding]:
    """Find models that are incomplete or changed, by their files' sizes (`verify` hashes them)."""
    entries, complete = list(layers.read().models.values()), 0
    for entry in entries:
        build, present = layout.find_build(entry), layout.is_present(entry)
        files = verify.expected_files(entry)
        is_partial = any(not file.is_build for file in files) and not (build or present)
        wrong = list(_wrong_sizes(entry, files))
        complete += bool(files) and not (is_partial or wrong)
        if entry.location is not None and not present:
            text = f"{entry.name}, imported from {entry.location}, has changed or is missing"
            advice = f"import it again, or remove it: edgesppo rm {entry.name}"
            yield Finding("model", FAIL, text, advice)
        elif entry.shipped is not None and not present:
            advice = "reinstall edgesppo, which includes it"
            yield Finding("model", FAIL, f"{entry.name} is incomplete", advice)
        elif wrong:
            yield from wrong
        elif is_partial:
            advice = f"edgesppo pull {entry.name}, or: edgesppo rm {entry.name}"
            yield Finding("model", WARN, f"{entry.name} is only partly downloaded", advice)
    text = f"{complete} of {len(entries)} are on this machine and have the right sizes"
    yield Finding("models", OK, f"{text}; to check the hashes: edgesppo verify --all")


def _wrong_sizes(entry: PinnedModel, files: Sequence[ExpectedFile]) -> Iterator[Finding]:
    """A finding for each of the model's files whose size is not the pinned one."""
    for file in files:
        found = layout.size_of(file.path)
        if found not in (None, file.size):
            text = f"{file.path.name} of {entry.name} has {found:,} bytes, expected {file.size:,}"
            again = merge_again(entry) if file.is_merged else f"edgesppo pull {entry.name} --repair"
            yield Finding("model", FAIL, text, again)


def _links() -> Iterator[Finding]:
    """Find links that lead out of edgesppo's folders; they are never written or removed through."""
    found = list[Path]()
    for folder, folders, names in os.walk(layout.root()):
        found += [Path(folder) / name for name in (*folders, *names)]
    for path in sorted(path for path in found if path.is_symlink()):
        real = Path(os.path.realpath(path))
        if not layout.is_ours(real):
            text = f"{path} is a link to {real}, outside of edgesppo's folders"
            yield Finding("link", WARN, text, f"remove it: {_RM} {shell_word(str(path))}")


def _rubbish() -> Iterator[Finding]:
    garbage = gc.find_garbage()
    if garbage:
        total = sum(item.n_bytes for item in garbage)
        advice = "finish the download, or remove them: edgesppo gc"
        yield Finding("rubbish", WARN, f"{size(total)} in files that nothing uses", advice)


def _network() -> Iterator[Finding]:
    if name := offline():
        yield Finding("offline", OK, f"{name} is set: nothing is downloaded")
    from huggingface_hub import get_token

    token = "found (not shown)" if get_token() else "none; only gated models need one"
    yield Finding("token", OK, token, None)
    if os.environ.get("HF_ENDPOINT"):
        from edgesppo.hub.repository import endpoint

        yield Finding("hub", OK, f"HF_ENDPOINT is {endpoint()}")
