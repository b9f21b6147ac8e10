"""``atelier cost``: what assets and model versions cost, from the lake's records.

What belongs here: arguments, and words for the terminal. What does not: any sum (``components.pipeline.costs``).
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .lake_commands import LakeCommand, table


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", help="ASSET, ASSET@VERSION or NAME/VERSION; without, what every current version cost"
    )
    parser.add_argument("--json", action="store_true", help="everything that is known, for programs")


def _cost(ws: Any, parsed: argparse.Namespace) -> int:
    from components.pipeline.costs import version_cost
    from components.pipeline.lineage import Ledger

    ledger = Ledger(ws)
    if parsed.model is None:
        return _current(ledger, parsed.json)
    record = ledger.model_record(parsed.model)
    found = version_cost(ws.lake, record)
    if parsed.json:
        print(json.dumps(asdict(found), indent=1))
        return 0
    print(f"{record.registry or record.asset} cost {_price(found.total.cost)} with everything that it was made from")
    print("\n".join(_lines([found.own, *found.ancestors, found.total])))
    for lost in found.missing:
        print(f"  not in it: {lost}, whose record is gone")
    return 0


def _current(ledger: Any, is_json: bool) -> int:
    from components.pipeline.costs import by_asset, cost_of

    records = ledger.current
    costs = [*by_asset(records), cost_of("total", records)]
    if is_json:
        print(json.dumps([asdict(one) for one in costs], indent=1))
    else:
        print("what the current versions cost when they were made")
        print("\n".join(_lines(costs)))
    return 0


def _lines(costs: Sequence[Any]) -> Iterator[str]:
    from components.pipeline.progress import clock

    heading = ("asset", "versions", "wall", "CPU", "GPU", "peak memory", "cost")
    rows = [
        (
            one.asset,
            str(one.num_versions),
            clock(one.seconds),
            clock(one.cpu_seconds),
            clock(one.gpu_seconds),
            f"{one.peak_memory_gib:.2f} GiB",
            _price(one.cost) + (f" ({one.num_unmeasured} made before costs were kept)" if one.num_unmeasured else ""),
        )
        for one in costs
    ]
    yield from table([heading, *rows])


def _price(cost: float) -> str:
    return f"{cost:,.2f}" if cost >= 1 else f"{cost:.4f}"


COST_COMMANDS = (
    LakeCommand("cost", "what a model version cost, with everything that it was made from", _arguments, _cost),
)
