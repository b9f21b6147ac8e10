"""The report as a page that stands alone: pictures inside, every caption escaped, no script, nothing from elsewhere.

What belongs here: turning :class:`components.evaluation.figures.Report` and example pictures into ``index.html``. What
does not: measuring, and wording (``verdict``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from components.contracts import Frozen
from components.data.pictures import data_uri, picture_of

from .figures import GenerationFigures, Report
from .intervals import Figure

Part = Frozen | Mapping[str, Figure | int | None]  # one row of a table, by field name

_TEMPLATE = "report.html.j2"
_SMALL, _LARGE = 96, 192  # shown sides in CSS pixels: in galleries, and for enlargements


@dataclass(frozen=True, slots=True)
class CaptionExample:
    """A held-out picture, uint8 (H, W, 3), and its captions by kind (raw, ssc, dsc)."""

    pixels: np.ndarray
    captions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Gallery:
    """The same texts drawn several ways, side by side.

    ``pixels`` maps a label (``raw``, ``dsc-95, consistency``) to uint8 (N, H, W, 3), one picture per text.
    """

    title: str
    texts: Sequence[str]
    pixels: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        for label, pictures in self.pixels.items():
            if len(pictures) != len(self.texts):
                raise ValueError(
                    f"gallery {self.title!r}: {len(pictures)} pictures of {label!r} for {len(self.texts)} texts"
                )


@dataclass(frozen=True, slots=True)
class Examples:
    """What the page shows beside the figures. ``plots`` maps a title to a picture."""

    captions: Sequence[CaptionExample] = ()
    generation: Sequence[Gallery] = ()
    decoder: Gallery | None = None
    disagreements: Gallery | None = None
    plots: Mapping[str, Image.Image] = field(default_factory=dict)


NOTHING_SHOWN = Examples()


def render_html(report: Report, examples: Examples = NOTHING_SHOWN) -> str:
    """``index.html``: one file that needs nothing else; the same report and examples give the same text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("components.evaluation").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    total = sum(report.seconds.values())
    return template.render(
        report=report,
        examples=examples,
        caption_kinds=[kind for kind in ("raw", "ssc", "dsc") if any(kind in e.captions for e in examples.captions)],
        captions=_table([(_CAPTION_NAMES.get(kind, kind), part) for kind, part in report.captions.items()]),
        generation={prompts: _table(rows) for prompts, rows in _by_prompts(report.generation).items()},
        decoder=_table(_decoder_rows(report)),
        judge=_table(_judge_rows(report)),
        upsampling=_table(_upsampling_rows(report)),
        suites=_table([(f"{one.suite}: {one.category} ({one.num_prompts:,})", one) for one in report.suites]),
        seconds={name: (value, value / total if total else 0.0) for name, value in report.seconds.items()},
        total_seconds=total,
        duration=duration,
        image=_image,
        plot=data_uri,
        small=_SMALL,
        large=_LARGE,
    )


def _image(pixels: np.ndarray, side: int) -> dict[str, str | int]:
    """Attributes of a shown picture: small ones keep their pixels visible, large ones are scaled smoothly."""
    rendering = "auto" if max(pixels.shape[:2]) > side else "pixelated"
    return {"src": data_uri(picture_of(pixels)), "width": side, "style": f"image-rendering: {rendering}"}


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


# ------------------------------------------------------------------------------------------------------------- tables
@dataclass(frozen=True, slots=True)
class Column:
    """How a figure is shown: its heading, what it means, and whether it is a share (shown in per cent, with a bar)."""

    title: str
    meaning: str
    is_share: bool = True
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure as text; ``fraction`` is the length of its bar."""

    value: str
    interval: str
    num_samples: int
    fraction: float | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under those columns that at least one row has."""

    columns: Mapping[str, Column]
    rows: Sequence[tuple[str, Mapping[str, Cell]]]


COLUMNS = {
    "num_inference_steps": Column("steps", "Network passes per picture", is_share=False),
    "scene_accuracy": Column("whole scene", "Pictures in which every fact is right"),
    "one_object": Column("one object", "Whole scenes right, of prompts for a single object"),
    "object_accuracy": Column("objects", "Objects with right shape, colour and place"),
    "attribute_accuracy": Column("attributes", "Attributes to be said that are said rightly"),
    "exact_match": Column("exact", "Captions that say everything and nothing false"),
    "hallucination_rate": Column("made up", "Statements that are false (less is better)"),
    "colour": Column("colour", "Objects of the right colour"),
    "shape": Column("shape", "Objects of the right shape"),
    "size": Column("size", "Objects of the right size"),
    "count": Column("count", "Pictures with the right number of objects"),
    "place": Column("place", "Objects in the right place"),
    "relation": Column("relation", "Relations (left of, above) that hold"),
    "background": Column("background", "Pictures with the right background"),
    "style": Column("style", "Objects in the right style"),
    "text": Column("text", "Rendered texts that read as stated"),
    "mean_words": Column("words", "Words per caption", is_share=False, digits=1),
    "clauses": Column("clauses", "Parts between punctuation marks", is_share=False, digits=1),
    "known_words": Column("known words", "Words that stand in captions trained on"),
    "distinct": Column("distinct", "Different captions per caption"),
    "clip_score": Column("CLIP score", "Cosine x 100 of picture and text", is_share=False, digits=1),
    "retrieval_at_1": Column("retrieval@1", "Pictures that are nearer to their own text than to any other"),
    "fid": Column("FID", "Frechet distance to real pictures (less is better)", is_share=False),
    "kid": Column("KID", "Kernel distance to real pictures (less is better)", is_share=False, digits=1),
    "psnr": Column("PSNR, dB", "Peak signal-to-noise ratio against the original", is_share=False, digits=1),
    "detail_ratio": Column("detail", "Fine detail over the original's; 100 % is as sharp"),
    "generated_scene_accuracy": Column("whole scene, generated", "The same on generated latents"),
    "generated_fid": Column("FID, generated", "The same on generated latents", is_share=False),
    "images_per_second": Column("pictures/s", "Pictures per second", is_share=False, digits=0),
    "rows_written": Column("written", "Rows written when the shards were last made", is_share=False),
    "rows_reused": Column("reused", "Rows whose caption an earlier version held", is_share=False),
}
_SMALL_FIGURE, _DIGITS_OF_SMALL = 0.5, 4
_CAPTION_NAMES = {"raw": "raw captions", "ssc": "SSC, short", "dsc": "DSC, descriptive"}


def _table(rows: Sequence[tuple[str, Part]]) -> Table:
    cells = [(label, _cells(part)) for label, part in rows]
    shown = {name: column for name, column in COLUMNS.items() if any(name in row for _, row in cells)}
    return Table(shown, cells)


def _cells(part: Part) -> dict[str, Cell]:
    values = part if isinstance(part, Mapping) else {name: getattr(part, name) for name in type(part).model_fields}
    cells = {}
    for name, column in COLUMNS.items():
        value = values.get(name)
        if isinstance(value, Figure):
            cells[name] = _cell(value, column)
        elif isinstance(value, int):
            cells[name] = Cell(str(value), "", 1, None)
    return cells


def _cell(figure: Figure, column: Column) -> Cell:
    factor, digits, unit = (100, 1, " %") if column.is_share else (1, column.digits, "")
    if not column.is_share and abs(figure.value) < _SMALL_FIGURE:
        digits = _DIGITS_OF_SMALL  # distances between unit embeddings
    interval = ""
    if figure.ci95:
        low, high = (f"{factor * bound:,.{digits}f}" for bound in figure.ci95)
        interval = f"{low} to {high}" if figure.ci95[0] < 0 else f"{low}–{high}"
    fraction = min(1.0, max(0.0, figure.value)) if column.is_share else None
    return Cell(f"{factor * figure.value:,.{digits}f}{unit}", interval, figure.num_samples, fraction)


def _by_prompts(generation: Sequence[GenerationFigures]) -> dict[str, list[tuple[str, Part]]]:
    groups: dict[str, list[tuple[str, Part]]] = {}
    for figures in generation:
        prompts = f"{figures.prompts} prompts" + (", upsampled" if figures.upsampled else "")
        seeds = f" ({figures.num_seeds} seeds)" if figures.num_seeds > 1 else ""
        row = (f"{figures.model}, {figures.decoder}{seeds}", figures)
        groups.setdefault(f"{prompts} ({figures.num_prompts:,})", []).append(row)
    return groups


def _upsampling_rows(report: Report) -> list[tuple[str, Part]]:
    found = report.upsampling
    if found is None:
        return []
    prompts = {"mean_words": found.words, "clauses": found.clauses, "known_words": found.known_words}
    return [
        (f"upsampled prompts ({found.num_prompts:,})", prompts),
        ("captions trained on", {"mean_words": found.caption_words, "clauses": found.caption_clauses}),
    ]


def _judge_rows(report: Report) -> list[tuple[str, Part]]:
    on_real = (("the judge, real pictures", report.judge), ("second judge, real pictures", report.second_judge))
    rows: list[tuple[str, Part]] = [(label, figures) for label, figures in on_real if figures]
    return rows + [
        (f"both agree, {kind.replace('_', ' ')} prompts", figures) for kind, figures in report.judges_agree.items()
    ]


def _decoder_rows(report: Report) -> list[tuple[str, Part]]:
    rows: list[tuple[str, Part]] = []
    for name, figures in report.decoder.items():
        values = {field_name: getattr(figures, field_name) for field_name in type(figures).model_fields}
        if generated := values.pop("generated"):
            values |= {"generated_scene_accuracy": generated.scene_accuracy, "generated_fid": generated.fid}
        rows.append((name.replace("_", ", ") + (" steps" if name[-1:].isdigit() else ""), values))
    return rows
