"""Collect input sums on the machines of a Ray cluster, each with the model of its own store.

Samples go out in small leases. Ray starts one as soon as a machine is free, so a slow machine gets
fewer, and starts the lease of a lost machine again elsewhere. The sums come back in the samples'
order, so that what is done can be counted, saved and resumed as on one machine.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesppo._version import __version__
from edgesppo.errors import UsageError
from edgesppo.evaluate.candidate import RunOptions, find_unquantised, model_hash
from edgesppo.evaluate.input_sums import InputSums
from edgesppo.remote.ray_connection import cause, connect

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from edgesppo.evaluate.input_sums import Squares

_LEASES = 4  # of a machine, at least
_LONGEST = 32  # samples of a lease
_TRIES = 3


@dataclass(frozen=True)
class OnCluster:
    """A Ray cluster's address, and the name or path under which its machines have the model."""

    address: str
    model: str


def squares_here(
    version: str,
    model: str,
    fingerprint: str,
    samples: Sequence[tuple[Sequence[int], str]],
    options: dict[str, Any],
) -> list[list[Squares]]:
    """The sums of these samples (ids and name), by the model of this machine; runs there."""
    if version != __version__:
        raise UsageError(f"a machine has edgesppo {__version__}, the first {version}")
    candidate = find_unquantised(model, RunOptions(gpu=options["gpu"]))
    if model_hash(candidate) != fingerprint:
        raise UsageError(
            f"the model {model} of a machine is another file than the first machine's; pull or "
            "copy the same there"
        )
    n_ctx = max(16, *(len(ids) for ids, _ in samples))
    with InputSums(
        candidate, n_ctx, options["gpu"], process_output=options["process_output"]
    ) as inputs:
        return [inputs.of(ids, name) for ids, name in samples]


@contextmanager
def cluster_squares(
    where: OnCluster,
    fingerprint: str,
    samples: Sequence[tuple[Sequence[int], str]],
    *,
    gpu: str | int,
    process_output: bool,
) -> Iterator[Iterator[list[Squares]]]:
    """The sums of each sample, in order. Raises UsageError where there is no such cluster."""
    ray = connect(where.address)
    try:
        options = {"gpu": gpu, "process_output": process_output}
        found = _squares(ray, (__version__, where.model, fingerprint), samples, options)
        with closing(found):
            yield found
    finally:
        ray.shutdown()


def _squares(
    ray: Any,
    whose: tuple[str, str, str],
    samples: Sequence[tuple[Sequence[int], str]],
    options: dict[str, Any],
) -> Generator[list[Squares], None, None]:
    cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    cpus = [count for count in cpus if count]
    if not cpus:
        raise UsageError("the Ray cluster has no machines with processors")
    size = max(1, min(_LONGEST, len(samples) // (_LEASES * len(cpus))))
    # As many processors as the smallest machine has: one lease at a time on each like it.
    remote = ray.remote(squares_here).options(
        num_cpus=min(cpus), max_retries=_TRIES, scheduling_strategy="SPREAD"
    )
    leases = [samples[at : at + size] for at in range(0, len(samples), size)]
    calls = [remote.remote(*whose, lease, options) for lease in leases]
    for call in calls:
        try:
            yield from ray.get(call)
        except ray.exceptions.RayError as error:
            raise cause(error) from None
