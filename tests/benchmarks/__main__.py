"""Run every benchmark beside its peers, and write one table and one picture: `make bench`.

    python -m tests.benchmarks [--quick] [--only NAME ...] [--keep] [--publish]

Results go to build/bench: results.json, results.md, results.svg, and the output of each program.
With --keep, what an earlier run found of other benchmarks stays. With --publish the page and the
picture of the help are written, too. Nothing else should run meanwhile. The peers and the model
files are made once and kept (`peers.py`, `files.py`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from edgesppo.system import load
from edgesppo.system.units import duration
from tests.benchmarks.machine import this_machine
from tests.benchmarks.plot import draw
from tests.benchmarks.record import read_records
from tests.benchmarks.results import Results
from tests.benchmarks.suite import PARTS, QUICK_ROUNDS, Part
from tests.support.paths import ROOT

OUT = ROOT / "build" / "bench"
PAGE = ROOT / "edgesppo" / "help" / "performance.md"


def main() -> int:
    """Run, and return 1 if a benchmark failed, else 0."""
    options = _options()
    OUT.mkdir(parents=True, exist_ok=True)
    print("The peers are built first, if they are not there yet: some minutes", flush=True)
    results = Results(_command(options), this_machine(), options.quick)
    if options.keep:
        print(results.keep(OUT / "results.json"), flush=True)
    for name, part in _chosen(options).items():
        _run(name, part, results, quick=options.quick)
        _write(results)
    _tell(results)
    if options.publish:
        _publish(results)
    return int(bool(results.failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a small model, in ten minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[], metavar="NAME")
    parser.add_argument("--keep", action="store_true", help="add to what the last run found")
    parser.add_argument("--publish", action="store_true", help="write the help's page, too")
    options = parser.parse_args()
    if options.publish and options.only and not options.keep:
        parser.error("--publish writes the whole page: leave --only out, or add --keep")
    return options


def _command(options: argparse.Namespace) -> str:
    words = ["make bench", "QUICK=1" if options.quick else ""]
    words.append(f'ONLY="{" ".join(options.only)}"' if options.only else "")
    return " ".join(filter(None, words))


def _chosen(options: argparse.Namespace) -> dict[str, Part]:
    """The benchmarks to run: those that are named, or all that a run of this kind has."""
    names = options.only or [
        name for name, part in PARTS.items() if not options.quick or part.quick
    ]
    return {name: PARTS[name] for name in names}


def _run(name: str, part: Part, results: Results, *, quick: bool) -> None:
    """Run one benchmark in a process of its own, and keep its records."""
    print(f"\n{part.title} ({name})", flush=True)
    results.others = load.most(results.others, load.others())
    results.failed.pop(name, None)
    records, log = OUT / f"{name}.json", OUT / f"{name}.log"
    records.unlink(missing_ok=True)
    short = part.quick if quick else None
    words = part.full() if short is None else [*short(), "--rounds", QUICK_ROUNDS]
    command = [sys.executable, "-m", f"tests.benchmarks.{part.program}", *map(str, words)]
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(
            [*command, "--json", str(records)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert child.stdout is not None
        for line in child.stdout:
            file.write(line)
            if line.startswith("  "):
                print(line, end="", flush=True)
        code = child.wait()
    results.seconds[name] = time.perf_counter() - started
    results.records[name] = read_records(records)
    if code:
        results.failed[name] = log.read_text(encoding="utf-8")
        print(f"  FAILED: see {log}", flush=True)
    print(f"  ({duration(results.seconds[name])})", flush=True)


def _write(results: Results) -> None:
    """Write all that is known so far."""
    results.write_json(OUT / "results.json")
    plot = "results.svg" if draw(results, OUT / "results.svg") else ""
    (OUT / "results.md").write_text(results.markdown(plot), encoding="utf-8")


def _tell(results: Results) -> None:
    """Say where we stand."""
    behind = results.behind()
    n = sum(map(len, results.records.values()))
    print(
        f"\n{n} comparisons in {duration(sum(results.seconds.values()))}; behind in {len(behind)}:"
    )
    for name, record in behind:
        print(f"  {name}:{record}")
    print(f"Table: {OUT / 'results.md'}")


def _publish(results: Results) -> None:
    """Write the page and the picture that ship with the help."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    picture = PAGE.with_suffix(".svg")
    drawn = draw(results, picture)
    PAGE.write_text(results.markdown(picture.name if drawn else ""), encoding="utf-8")
    print(f"Published: {PAGE}")


if __name__ == "__main__":
    sys.exit(main())
