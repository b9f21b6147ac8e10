"""``make bench``: run every benchmark, print a table, write ``.atelier/bench.json``.

What belongs here: the list and the table. What does not: how one thing is measured (a module each).
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from components.pipeline.progress import silence_libraries

from .graph import graph_over_direct_calls
from .incremental import incremental_over_everything
from .ingestion import ingestion_over_plain_loop
from .measurement import Ratio
from .recaptioning import recaptioning_over_generate
from .training import cost_growth, stage_profiles, training_over_plain_loops

BENCHMARKS: dict[str, Callable[[Path], Iterable[Ratio]]] = {
    "training": training_over_plain_loops,
    "stages": stage_profiles,
    "growth": cost_growth,
    "ingest": ingestion_over_plain_loop,
    "recaptioning": lambda folder: [recaptioning_over_generate(folder)],
    "incremental": incremental_over_everything,
    "graph": lambda folder: [graph_over_direct_calls(folder)],
}


def main() -> int:
    """Run the benchmarks that are named, or all; the status says whether they ran, not whether the aims are met."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks", description="Ratios against references.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}; all by default")
    chosen = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(chosen) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}: take {', '.join(BENCHMARKS)}")
    silence_libraries()
    ratios: list[Ratio] = []
    sys.stdout.write(HEADING)
    with tempfile.TemporaryDirectory(prefix="atelier-bench-") as folder:
        for name, benchmark in BENCHMARKS.items():
            if name in chosen:
                for one in benchmark(Path(folder) / name):
                    ratios.append(one)
                    sys.stdout.write(row(one))
                    sys.stdout.flush()
    target = Path(".atelier") / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps([ratio.as_json() for ratio in ratios], indent=1) + "\n")
    return 0


HEADING = f"{'what':44s} {'ratio':>7s} {'ours':>10s} {'reference':>10s} {'unit':10s} aim\n"


def row(one: Ratio) -> str:
    """Two lines of the table: the ratio, and under which settings it was measured."""
    figures = f"{one.ratio:7.3f} {one.ours:10.3f} {one.reference:10.3f} {one.unit:10s} {one.aim}"
    return f"{one.name:44s} {figures}\n    {one.settings}\n"


if __name__ == "__main__":
    sys.exit(main())
