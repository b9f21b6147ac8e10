"""``atelier lineage``, ``atelier export`` and ``atelier gc``: questions to a lake, and what leaves it.

What belongs here: their arguments, and words for the terminal. What does not: any answer (``components.pipeline``).
Heavy libraries are imported when a command runs.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.terminal import printable

from .launch import log_to_terminal


@dataclass(frozen=True, slots=True)
class LakeCommand:
    """A subcommand that works on one workspace's lake."""

    name: str
    words: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Any, argparse.Namespace], int]


def size(num_bytes: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> Iterator[str]:
    """Rows as lines with aligned columns; the last column runs free."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield (indent + "  ".join([*cells, row[-1]])).rstrip()


# ------------------------------------------------------------------------------------------------------------- lineage
QUESTIONS = {
    "row": "KEY: where the row comes from, its captions, and which training sets and models saw it",
    "sha256": "DIGEST of a picture's bytes, in the source or as stored: the same for each of its rows",
    "picture": "FILE or URI: its digests as an opt-out list has them, and the rows that hold it or a near copy",
    "source": "URI of a source file or folder, or URI#member of a row: what became of it",
    "captioner": "NAME/VERSION: its captions' shards, and what was trained on them",
    "model": "ASSET, ASSET@VERSION or NAME/VERSION: what it was made from, and what was made from it",
    "opted-out": "the rows that the opt-out list names, and the models that saw them",
}


def _lineage_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["questions:", *table(list(QUESTIONS.items()))])
    parser.add_argument("question", choices=list(QUESTIONS))
    parser.add_argument("of", nargs="?", help="what the question is about; opted-out needs nothing")
    parser.add_argument("--json", action="store_true", help="everything that is known, for programs")


def _lineage(ws: Any, parsed: argparse.Namespace) -> int:
    from components.pipeline.lineage import Ledger

    if (parsed.of is None) != (parsed.question == "opted-out"):
        raise ValueError(f"atelier lineage {parsed.question} takes {QUESTIONS[parsed.question]}")
    ledger = Ledger(ws)
    ask = getattr(ledger, parsed.question.replace("-", "_"))
    answer = ask() if parsed.of is None else ask(parsed.of)
    answers = answer if isinstance(answer, list) else [answer]
    if parsed.json:
        known = [asdict(one) for one in answers]
        print(json.dumps(known if isinstance(answer, list) else known[0], indent=1, ensure_ascii=False))
        return 0
    if not answers:
        print("the opt-out list names no row of this lake")
    for one in answers:
        print("\n".join(WORDS[type(one).__name__](one)))
    return 0


def _version(version: Any) -> str:
    shard = f"[{version.shard}]" if version.shard else ""
    return f"{version.asset}{shard}"


def _versions(versions: Sequence[Any]) -> list[tuple[str, ...]]:
    return [
        (
            _version(version),
            version.data_version,
            version.made_at or "",
            "current" if version.is_current else "earlier",
            version.registry or "",
        )
        for version in versions
    ]


def _sights(sights: Sequence[Any], heading: str = "models that saw it") -> Iterator[str]:
    yield f"{heading}:" if sights else f"{heading}: none"
    rows = [
        (*row, f"through {', '.join(sight.through)}" if sight.through else "trained on it")
        for row, sight in zip(_versions([sight.model for sight in sights]), sights, strict=True)
    ]
    yield from table(rows)


def _row_words(row: Any) -> Iterator[str]:
    yield f"row {printable(row.key)}"
    for version in row.versions:
        part, cells = version.part, version.row
        yield f"{'now' if part.is_current else 'earlier'}, in {_version(part)} {part.data_version} ({part.made_at}):"
        shown = ("source", "license", "caption", "sha256", "source_sha256")
        pixels = ("size", f"{cells['width']} x {cells['height']}")
        yield from table([*((name, printable(str(cells[name]))) for name in shown), pixels])
    for rejection in row.rejections:
        yield f"rejected as {rejection['reason']}: {printable(rejection['detail'])} ({printable(rejection['source'])})"
    yield "captions:" if row.captions else "captions: none but the original"
    yield from table([_caption_cells(caption) for caption in row.captions])
    yield "sets that hold it:" if row.sets else "sets that hold it: none"
    yield from table([(*_versions([one.manifest])[0][:4], one.standing) for one in row.sets])
    yield from _sights(row.models)


def _caption_cells(caption: Any) -> tuple[str, ...]:
    score = "" if caption.score is None else f"{caption.score:.1f}"
    when = "current" if caption.part.is_current else "earlier"
    text = printable(caption.text or "none") + (f"  (rejected: {caption.rejected})" if caption.rejected else "")
    return caption.kind, when, caption.captioner, score, text


def _picture_words(picture: Any) -> Iterator[str]:
    yield f"picture {printable(picture.uri)}"
    yield from table([("sha256", picture.sha256), ("perceptual_hash", picture.perceptual_hash)])
    yield f"rows that hold it or a near copy: {len(picture.rows) or 'none'}"
    for row in picture.rows:
        saw = sum(not sight.through for sight in row.models)
        yield f"  {printable(row.key)}: {saw} model versions were trained on it; atelier lineage row tells which"


def _part_words(parts: Any) -> Iterator[str]:
    yield f"{printable(parts.what)}: {sum(part.num_rows or 0 for part in parts.parts)} rows in these parts"
    yield from table(_versions(parts.parts))
    yield "sets that hold them:" if parts.sets else "sets that hold them: none"
    yield from table(_versions(parts.sets))
    yield from _sights(parts.models, "models that saw them")


def _model_words(model: Any) -> Iterator[str]:
    yield "model"
    yield from table(_versions([model.model]))
    yield "made from"
    yield from table(_versions(model.ancestors))
    yield from (f"  {missing}: its record is gone" for missing in model.missing)
    yield f"captions by: {', '.join(model.captioners) or 'none'}"
    yield "sources:" if model.sources else "sources: none"
    yield from table([(f"{rows} rows", printable(uri)) for uri, rows in model.sources.items()])
    yield from _sights(model.descendants, "made from it")


def _opted_out_words(row: Any) -> Iterator[str]:
    state = "left out" if row.is_left_out else "STILL IN THE IMAGE SET: run the job images and what follows it"
    yield f"{printable(row.key)} in {_version(row.part)} {row.part.data_version}: {state}"
    yield f"  named by {printable(row.entry)}{f' ({printable(row.reason)})' if row.reason else ''}"
    yield from (f"  {line}" for line in _sights(row.models))


WORDS: dict[str, Callable[[Any], Iterator[str]]] = {
    "RowLineage": _row_words,
    "PictureLineage": _picture_words,
    "PartLineage": _part_words,
    "ModelLineage": _model_words,
    "OptedOut": _opted_out_words,
}


# -------------------------------------------------------------------------------------------------------------- export
def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", help="an empty or new folder, or any fsspec URI such as s3://bucket/prefix")
    parser.add_argument("--format", choices=["webdataset", "parquet", "files"], default="webdataset")
    parser.add_argument(
        "--caption",
        choices=["caption", "ssc", "dsc"],
        help="which caption stands first: the original, the short or the descriptive one; dsc where there are any",
    )
    parser.add_argument("--split", choices=["all", "train", "evaluation"], default="all")
    parser.add_argument("--shards", default="", help="some shards only: 00000,00003")


def _export(ws: Any, parsed: argparse.Namespace) -> int:
    from components.pipeline.export import ExportPlan, default_caption, export

    log_to_terminal()
    shards = tuple(shard.strip() for shard in parsed.shards.split(",") if shard.strip())
    plan = ExportPlan(parsed.format, parsed.caption or default_caption(ws), parsed.split, shards)
    done = export(ws, parsed.target, plan)
    left_out: dict[str, int] = {}
    for shard in done:
        for reason, count in shard.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    reused = sum(shard.is_reused for shard in done)
    print(
        f"exported {sum(shard.num_rows for shard in done)} rows with {plan.caption} captions in {len(done)} shards "
        f"to {parsed.target}{f', {reused} of them by an earlier run' if reused else ''}"
    )
    for reason, count in sorted(left_out.items()):
        print(f"  left out because {reason}: {count}")
    return 0


# ------------------------------------------------------------------------------------------------------------------ gc
def _gc_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--delete", action="store_true", help="remove it; without, it is only listed")
    parser.add_argument("--superseded", action="store_true", help="old versions too that no registered model rests on")
    parser.add_argument("--min-age-hours", type=float, default=24.0, help="leave alone what is younger (24)")
    parser.add_argument("--list", action="store_true", help="name every file and folder")


def _gc(ws: Any, parsed: argparse.Namespace) -> int:
    from components.pipeline.garbage import find_garbage, remove

    garbage = find_garbage(ws, min_age_hours=parsed.min_age_hours, superseded=parsed.superseded)
    gone = list(remove(ws.lake, garbage)) if parsed.delete else list(garbage.leftovers)
    print(f"{ws.lake.uri()}: {garbage.num_kept} files ({size(garbage.kept_bytes)}) are named by records and stay")
    for why in sorted({one.why for one in gone}):
        of_kind = [one for one in gone if one.why == why]
        verb = "removed" if parsed.delete else "would go"
        print(f"  {verb}, {why}: {len(of_kind)} ({size(sum(one.num_bytes for one in of_kind))})")
    for one in gone if parsed.list else ():
        print(f"    {printable(one.path)}")
    if garbage.young:
        print(f"  younger than {parsed.min_age_hours:g} h, a writer may be at work: {len(garbage.young)} stay")
    if garbage.unknown:
        print(f"  not the lake's, left alone: {len(garbage.unknown)}, for example {printable(garbage.unknown[0])}")
    if not gone:
        print("  nothing is left over")
    elif not parsed.delete:
        print("nothing was removed; run it again with --delete", file=sys.stderr)
    return 0


LAKE_COMMANDS = (
    LakeCommand("lineage", "where rows come from, and who saw them", _lineage_arguments, _lineage),
    LakeCommand("export", "write pictures and captions for other trainers", _export_arguments, _export),
    LakeCommand("gc", "what no record of the lake names any more; removes it with --delete", _gc_arguments, _gc),
)
