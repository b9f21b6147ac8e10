"""What every asset of the graph has in common: group, kinds, owners, code version, column schema.

What belongs here: the words that the UI shows and the two decorators that apply them. What does not: how an asset is
made (its own file names the stage function).
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from components.pipeline.versions import CODE_VERSIONS
from components.schemas import TABLES

from .checks import check_specs
from .partitions import SHARDS

OWNERS = ["team:atelier"]
GPU = "gpu"
"""The pool of everything that computes with networks, except what has a pool of its own."""


def whole_asset(
    *,
    group: str,
    kinds: set[str],
    deps: Sequence[str | dg.AssetDep],
    partitions_def: dg.PartitionsDefinition | None = None,
    automation_condition: dg.AutomationCondition | None = None,
) -> Callable[[Any], Any]:
    """An asset that is made as a whole (or partition by partition, one in a run).

    Its function gives the name and, as docstring, the description.
    """

    def decorate(function: Any) -> dg.AssetsDefinition:
        name = function.__name__
        return dg.asset(
            group_name=group,
            kinds=kinds,
            owners=OWNERS,
            deps=list(deps),
            description=inspect.getdoc(function),
            code_version=CODE_VERSIONS[name],
            check_specs=check_specs(name),
            partitions_def=partitions_def,
            pool=_pool(kinds),
            automation_condition=automation_condition,
        )(function)

    return decorate


def _pool(kinds: set[str]) -> str | None:
    return GPU if "pytorch" in kinds else None


def sharded_asset(*, group: str, kinds: set[str], deps: Sequence[str], pool: str | None = None) -> Callable[[Any], Any]:
    """An asset partitioned by shard; a range is one run, in which a failed shard leaves the others standing."""

    def decorate(function: Any) -> dg.AssetsDefinition:
        name = function.__name__
        spec = dg.AssetSpec(
            name,
            deps=list(deps),
            description=inspect.getdoc(function),
            group_name=group,
            kinds=kinds,
            owners=OWNERS,
            code_version=CODE_VERSIONS[name],
            partitions_def=SHARDS,
            skippable=True,
            metadata={"dagster/column_schema": column_schema(name)},
        )
        return dg.multi_asset(
            name=name,
            specs=[spec],
            check_specs=check_specs(name),
            partitions_def=SHARDS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            pool=pool or _pool(kinds),
        )(function)

    return decorate


def column_schema(table: str) -> dg.TableSchema:
    """A table's contract as the UI shows it."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                c.name,
                str(c.type),
                description=c.description,
                constraints=dg.TableColumnConstraints(nullable=c.nullable),
            )
            for c in TABLES[table].columns
        ]
    )
