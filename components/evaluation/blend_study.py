"""What the study of caption blends found: which captions help, by how much, and what the best possible ones would add.

What belongs here: the study's rows out of a report, the share of the gap that a blend closes, the sentences and the
Markdown table. What does not: training and measuring of arms (the pipeline) and curves (``plots``).

After sections 3.4 and 3.5 of the DALL-E 3 report, whose figure 4 compares raw, short and descriptive captions and whose
figure 5 compares blends of descriptive captions with raw ones.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from .figures import GenerationFigures, Report, in_per_cent, values_of
from .intervals import Figure
from .wording import compared, percent

RAW, SHORT, MAIN, ORACLE = "raw", "ssc-95", "dsc-95", "oracle"
FIGURE_4 = (RAW, SHORT, MAIN, ORACLE)
FIGURE_5 = ("dsc-65", "dsc-80", "dsc-90", MAIN)
NAMES = tuple(dict.fromkeys((RAW, SHORT, *FIGURE_5, ORACLE)))
LONG = "-long"  # ends the name of an arm that was trained for more steps
CURVES: Mapping[str, Sequence[str]] = {
    "Captions over training": FIGURE_4,
    "Blends of descriptive captions over training": FIGURE_5,
    "Captions over a longer training": tuple(name + LONG for name in FIGURE_4),
}
UPSAMPLED = ", upsampled"  # ends the kind of prompts that the upsampler rewrote
_SHARES = {"object_accuracy": "objects right", "scene_accuracy": "whole scenes right", "relation": "relations right"}
_NUMBERS = {"clip_score": ("CLIP score", "{:.1f}"), "fid": ("FID", "{:.0f}")}

Rows = Mapping[str, Mapping[str, GenerationFigures]]


def rows_of(generation: Sequence[GenerationFigures]) -> Rows:
    """The arms' figures through the plain decoder: by kind of prompt, then by captions, in the order of ``NAMES``.

    Where the study has trained the main model's blend with several seeds, their mean takes the single model's place.
    """
    found: dict[str, dict[str, GenerationFigures]] = {}
    for one in generation:
        if one.decoder == "vae":
            kind = one.prompts + UPSAMPLED if one.upsampled else one.prompts
            if one.model not in found.setdefault(kind, {}) or one.is_study:
                found[kind][one.model] = one
    return {kind: dict(sorted(arms.items(), key=lambda arm: _place(arm[0]))) for kind, arms in found.items()}


def gap_closed(lowest: Figure, ours: Figure, highest: Figure) -> Figure | None:
    """Which share of the way from ``lowest`` to ``highest`` lies behind us: 0 at the one, 1 at the other.

    The interval is the delta method's for three independent figures. The arms draw the same prompts, so their errors
    go together and it is rather too wide than too narrow. None where the gap itself is not clear.
    """
    if lowest.ci95 is None or ours.ci95 is None or highest.ci95 is None or lowest.ci95[1] >= highest.ci95[0]:
        return None
    gap = highest.value - lowest.value
    closed = (ours.value - lowest.value) / gap
    weights = ((1 - closed, lowest), (1.0, ours), (closed, highest))
    half = math.hypot(*(weight * _half(figure) for weight, figure in weights)) / gap
    return Figure(closed, (closed - half, closed + half), ours.num_samples)


def sentences(report: Report) -> Iterator[str]:
    """Whether better captions help, in words: the order of blends and the gap to the oracle. Nothing without arms."""
    for kind, arms in rows_of(report.generation).items():
        objects = {name: one.object_accuracy for name, one in arms.items() if one.object_accuracy}
        usual = {name: figure for name, figure in objects.items() if name in NAMES}
        yield from _on_order(kind, usual)
        yield from _on_gap(kind, usual)
        yield from _on_longer(kind, objects)


def _on_order(kind: str, usual: Mapping[str, Figure]) -> Iterator[str]:
    if len(usual) > 2:
        shown = [f"{name} {percent(usual[name])}" for name in sorted(usual, key=lambda name: usual[name].value)]
        steps = [pair for pair in pairwise((RAW, SHORT, MAIN)) if set(pair) <= set(usual)]
        compared_steps = [f"{one} beside {other}: {compared(usual[one], usual[other])}" for other, one in steps]
        listed = f"On {kind} prompts, objects drawn rightly from the least to the most: {', '.join(shown)}"
        yield "; ".join([listed, *compared_steps]) + "."


def _on_gap(kind: str, usual: Mapping[str, Figure]) -> Iterator[str]:
    if {RAW, MAIN, ORACLE} <= set(usual):
        closed = gap_closed(usual[RAW], usual[MAIN], usual[ORACLE])
        if closed is not None and closed.ci95 is not None:
            low, high = (100 * bound for bound in closed.ci95)
            yield (
                f"On {kind} prompts {MAIN} closes {100 * closed.value:.0f} % ({low:.0f} to {high:.0f}) of the gap "
                f"between raw captions and the truth (objects)."
            )


def _on_longer(kind: str, objects: Mapping[str, Figure]) -> Iterator[str]:
    for name, figure in objects.items():
        if name.endswith(LONG) and (usual := objects.get(name.removesuffix(LONG))):
            yield (
                f"On {kind} prompts {name.removesuffix(LONG)}, trained longer, draws {percent(figure)} of the objects "
                f"rightly ({compared(figure, usual)} the usual training's {percent(usual)})."
            )


def to_markdown(report: Report) -> str:
    """The study as a table: a row for each kind of prompt and each arm, 95 % intervals in brackets."""
    heading = ["prompts", "captions learned from", "seeds", *_SHARES.values()]
    heading += [title for title, _ in _NUMBERS.values()] + ["retrieval@1"]
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for kind, arms in rows_of(report.generation).items():
        for name, one in arms.items():
            values = values_of(one)
            cells = [kind, name, str(one.num_seeds), *(in_per_cent(values.get(share)) for share in _SHARES)]
            cells += [_number(getattr(one, field), form) for field, (_, form) in _NUMBERS.items()]
            lines.append(f"| {' | '.join([*cells, in_per_cent(values.get('retrieval_at_1'))])} |")
    return "\n".join(lines) + "\n"


def _place(name: str) -> tuple[bool, int, str]:
    usual = name.removesuffix(LONG)
    return name.endswith(LONG), NAMES.index(usual) if usual in NAMES else len(NAMES), name


def _half(figure: Figure) -> float:
    return (figure.ci95[1] - figure.ci95[0]) / 2 if figure.ci95 else 0.0


def _number(figure: Figure | None, form: str) -> str:
    if figure is None:
        return "-"
    interval = f" ({form.format(figure.ci95[0])}-{form.format(figure.ci95[1])})" if figure.ci95 else ""
    return form.format(figure.value) + interval
