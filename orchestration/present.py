"""From an outcome to what the Dagster UI shows: metadata, pictures, tables, links, check results.

What belongs here: wording and escaping for the UI. What does not: any figure (the record holds them already).
"""

import base64
import html
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from components.addresses import without_credentials
from components.data.lake import Record
from components.pipeline.ancestry import ancestry, captioners_of, sources_of
from components.pipeline.costs import figures_of
from components.pipeline.shards import ShardResult
from components.pipeline.versions import CODE_VERSIONS
from components.pipeline.workspace import Outcome, Workspace, kind_of

from .checks import check_results
from .home import mlflow_url

MAX_SOURCES = 20
MAX_PICTURE_BYTES = 400_000  # larger ones stay in the lake; the event log is a database


def materialized(context: dg.AssetExecutionContext, ws: Workspace, outcome: Outcome) -> dg.MaterializeResult:
    """The result of an unpartitioned asset: metadata, content's data version and check results."""
    record = outcome.record
    link_runs(context, record.asset, record.metadata.get("mlflow_run"))
    return dg.MaterializeResult(
        asset_key=record.asset,
        metadata=metadata_of(ws, outcome),
        data_version=dg.DataVersion(record.data_version),
        check_results=check_results(record.asset, [record]),
    )


def materialized_shards(
    context: dg.AssetExecutionContext, ws: Workspace, asset: str, results: Iterator[ShardResult]
) -> Iterator[dg.AssetMaterialization | dg.AssetCheckResult]:
    """One materialization for each finished shard, with its own data version; fails at the end naming the lost ones."""
    failures: list[str] = []
    records = []
    for result in results:
        if result.outcome is None:
            failure = without_credentials(str(result.failure))
            context.log.error(failure)
            failures.append(failure)
            continue
        record = result.outcome.record
        records.append(record)
        yield dg.AssetMaterialization(
            asset_key=asset,
            partition=result.shard,
            metadata=metadata_of(ws, result.outcome),
            tags={
                "dagster/data_version": record.data_version,
                "dagster/code_version": CODE_VERSIONS[asset],
                **_input_tags(context, asset, result.shard),
            },
        )
    yield from check_results(asset, records)
    if failures:
        raise dg.Failure(
            description=f"{len(failures)} of {len(failures) + len(records)} shards failed; the others are kept. "
            + " | ".join(failures[:5]),
            allow_retries=False,
        )


def _input_tags(context: dg.AssetExecutionContext, asset: str, shard: str) -> dict[str, str]:
    """Which versions a shard was made from, as Dagster itself notes it for outputs: it tells by them what is stale."""
    tags = {}
    for key in context.assets_def.asset_deps[dg.AssetKey(asset)]:
        name = key.to_user_string()
        partition = shard if kind_of(name) == "table" else None
        made = context.instance.get_latest_data_version_record(key, partition_key=partition)
        version = (made.event_log_entry.tags or {}).get("dagster/data_version") if made else None
        tags[f"dagster/input_data_version/{name}"] = version or "INITIAL"
        tags[f"dagster/input_event_pointer/{name}"] = str(made.storage_id) if made else "NULL"
    return tags


def metadata_of(ws: Workspace, outcome: Outcome) -> dict[str, Any]:
    """A record's figures, samples and pictures as Dagster metadata."""
    record = outcome.record
    shown: dict[str, Any] = {name: _picture(ws, name, path) for name, path in record.pictures.items()}
    shown |= _shown("samples", record.metadata.get("samples"))  # what a person looks at comes first
    shown |= {
        "uri": ws.lake.uri(record.path) if record.path else "none",
        "reused": outcome.is_reused,
        "seconds": record.seconds,
        "fingerprint": record.fingerprint,
    }
    if record.num_rows is not None:
        shown["dagster/row_count"] = record.num_rows
    if record.registry:
        shown["registry"] = record.registry
    if record.verdict:
        shown["verdict"] = record.verdict
    for name, value in record.metadata.items():
        shown |= _shown(name, value)
    if record.kind == "table":  # a shard has most of the lake behind it, the same for all of a range
        return shown | figures_of(record)
    ancestors, missing = ancestry(ws.lake, record)
    return shown | figures_of(record, ancestors) | _lineage(ancestors, missing)


def _lineage(ancestors: Sequence[Record], missing: Sequence[str]) -> dict[str, Any]:
    """What a model, manifest or report was made from: every version behind it, its captioners and sources."""
    rows = [
        {"asset": one.asset, "version": one.data_version, "registry": one.registry or ""}
        for one in ancestors
        if one.kind != "table"
    ]
    shown: dict[str, Any] = {"made_from": dg.MetadataValue.md(markdown_table(rows))} if rows else {}
    if missing:
        shown["made_from_lost"] = ", ".join(missing)
    if captioners := captioners_of(ancestors):
        shown["captions_by"] = ", ".join(captioners)
    sources = sources_of(ancestors)
    if sources:
        first = dict(list(sources.items())[:MAX_SOURCES])
        totals = {"shards": len(sources), "rows": sum(sources.values())}
        shown["sources"] = dg.MetadataValue.json({**totals, "first": first})
    return shown


def _shown(name: str, value: Any) -> dict[str, Any]:
    match name, value:
        case "mlflow_run", str() if value:
            return {"mlflow_run": dg.MetadataValue.url(f"{mlflow_url()}/#/runs/{value}"), "mlflow_run_id": value}
        case "losses", list():
            return {"final_losses": dg.MetadataValue.json(dict(value[-1][1]))} if value else {}
        case "samples", list():
            return {"samples_table": dg.MetadataValue.md(markdown_table(value))} if value else {}
        case _, float() if not math.isfinite(value):
            return {name: str(value)}
        case _, None:
            return {}
        case _, dict() | list():
            return {name: dg.MetadataValue.json(value)}
        case _:
            return {name: value}


def _picture(ws: Workspace, name: str, path: str) -> dg.MetadataValue:
    data = ws.lake.read_bytes(path)
    if len(data) > MAX_PICTURE_BYTES:
        return dg.MetadataValue.path(ws.lake.uri(path))
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(data).decode()})")


def markdown_table(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table; cells are escaped, so that no caption can break or script it."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(escaped(str(row.get(column, ""))) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is, addresses in it without a link."""
    plain = html.escape(" ".join(text.split()), quote=False)
    marked = "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|~" else c for c in plain)
    return _LINKED.sub("&#8288;", marked)


_LINKED = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\\\.)|(?=@)")  # where a word joiner keeps renderers from making links


def link_runs(context: dg.AssetExecutionContext, asset: str, mlflow_run: str | None) -> None:
    """Tag the Dagster run with the MLflow run it made (the MLflow run carries the Dagster run's id already)."""
    if mlflow_run:
        context.instance.add_run_tags(context.run.run_id, {f"mlflow/{asset}": mlflow_run})
