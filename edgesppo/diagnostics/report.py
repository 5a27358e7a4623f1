"""What a report may tell of this machine: versions, the processor, memory, and measured rates.

Each field is taken by name, and none has text that a person wrote: no path, no name of a user, a
host or a model, no token, and of `doctor`'s findings only whether they are well.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import re
import shutil
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgesppo._version import __version__
from edgesppo.errors import EdgesppoError
from edgesppo.gguf import gemma2
from edgesppo.gguf.file_types import file_type
from edgesppo.llama import build_info
from edgesppo.planning.run_config import TURNS, is_small
from edgesppo.store import locate
from edgesppo.system import cgroup, hardware, load
from edgesppo.system.paths import cache_dir, nearest_existing
from edgesppo.system.sanitize import one_line
from edgesppo.tuning import bandwidth, settings_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgesppo.diagnostics.finding import Finding
    from edgesppo.gguf.gemma2 import Summary

FORMAT = 1
_PACKAGES = (
    *("llama-cpp-python", "gguf", "huggingface-hub", "numpy", "numba", "click", "prompt-toolkit"),
    *("fastapi", "uvicorn", "ray"),
)
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_LONGEST = 80  # characters of the processor's name


def report(findings: Iterable[Finding]) -> dict[str, Any]:
    """The report as one JSON object; `findings` are those of `doctor.examine`.

    Sizes are in bytes, rates in tokens per second, the memory's bandwidth in bytes per second.
    Measures that bandwidth, and loads no model.
    """
    return {
        "format": FORMAT,
        "edgesppo": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": _packages(),
        "system": _system(),
        "processor": _processor(),
        "memory": _memory(),
        "library": _library(),
        "checks": _checks(findings),
        "models": list(_models()),
    }


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _system() -> dict[str, Any]:
    """The system's kind and version; a kernel's full name may be one that its builder chose."""
    release = _NUMBER.match(platform.release())
    return {
        "platform": sys.platform,
        "release": release[0] if release else None,
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "free_disk": shutil.disk_usage(nearest_existing(cache_dir())).free,
    }


def _processor() -> dict[str, Any]:
    others = load.others()
    return {
        "name": one_line(hardware.processor(), _LONGEST),
        "cores": hardware.cores(),
        "threads": hardware.usable_cpus(),
        "threads_of_the_machine": os.cpu_count(),
        "thread_choices": hardware.thread_choices(),
        "throttled": hardware.throttled(),
        "used_by_others": None if others is None else round(others, 2),
    }


def _memory() -> dict[str, Any]:
    return {
        "total": hardware.total_memory(),
        "available": hardware.available_memory(),
        "limit": cgroup.memory_limit(),
        "bandwidth": round(bandwidth.bandwidth(hardware.cores())),
    }


def _library() -> dict[str, Any]:
    version, info, offloads = build_info.library()
    return {
        "version": version or None,
        "compiler": " ".join(build_info.compiler()).strip() or None,
        "features": dict(re.findall(r"(\w+) = (\d+)", info)),
        "lacking": build_info.missing_features(info),
        "unused": build_info.unused_features(info),
        "gpu": offloads,
    }


def _checks(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Check -> its states; the texts stay here, since they quote paths."""
    states: dict[str, list[str]] = {}
    for finding in findings:
        states.setdefault(finding.about, []).append(finding.state)
    return states


def _models() -> Iterator[dict[str, Any]]:
    """What was measured of each model that is here, by its size and type instead of its name."""
    for _, path in locate.gguf_files():
        try:
            yield _model(gemma2.load_summary(path))
        except (EdgesppoError, OSError):
            continue


def _model(summary: Summary) -> dict[str, Any]:
    measured = {}
    for goal in () if is_small(summary) else TURNS:
        settings = settings_cache.cached_settings(summary, goal)
        if settings is not None:
            measured[goal] = asdict(settings)
    return {
        "parameters": sum(math.prod(tensor.dims) for tensor in summary.tensors),
        "bytes": summary.file_bytes,
        "type": file_type(summary),
        "measured": measured,
    }
