"""Curves and bars as pictures, for the Dagster UI and MLflow.

What belongs here: drawing with matplotlib's Agg canvas, without its global state. What does not: grids of pictures
(``components.data.pictures``) and the report's page, which draws its own bars.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .blend_study import LONG, NAMES
from .figures import CurvePoint
from .intervals import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

_COLORS: dict[str, str] = dict(
    zip(NAMES, ("#c0392b", "#8e7cc3", "#9bc7e0", "#5fa3d6", "#3b74c4", "#15408f", "#2e8b57"), strict=True)
)
_OTHER_COLOR = "#888888"
_INK, _GRID, _COLOR = "#33363b", "#d9dce1", "#3563c9"
_MAX_PANELS = 9


def loss_curves(history: Sequence[tuple[int, Mapping[str, float]]]) -> Image.Image:
    """Every logged scalar over steps, one panel each (losses first, nine at most).

    ``history``: (step, scalars) as the training loop yields them.
    """
    names = sorted({name for _, scalars in history for name in scalars}, key=_importance)[:_MAX_PANELS]
    if not names:
        raise ValueError("history holds no scalars; pass the steps for which the loop logged some")
    columns = min(3, len(names))
    num_rows = math.ceil(len(names) / columns)
    sheet = _sheet(4.0 * columns, 2.4 * num_rows)
    for number, name in enumerate(names, start=1):
        axes = sheet.add_subplot(num_rows, columns, number)
        points = [(step, scalars[name]) for step, scalars in history if name in scalars]
        steps, values = [step for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, color=_COLOR, linewidth=1.4)
        if min(values) > 0 and max(values) > 20 * min(values):
            axes.set_yscale("log")
        axes.set_title(name, fontsize=9, color=_INK, loc="left")
        _quiet(axes)
    return _picture(sheet)


def interval_bars(figures: Mapping[str, Figure], title: str, unit: str = "") -> Image.Image:
    """One horizontal bar per name, with its value and, as a line, its 95 % interval."""
    if not figures:
        raise ValueError(f"{title}: no figures to draw")
    sheet = _sheet(7.2, 0.9 + 0.38 * len(figures))
    axes = sheet.add_subplot(1, 1, 1)
    for position, figure in enumerate(figures.values()):
        axes.barh(position, figure.value, height=0.62, color=_COLOR, alpha=0.85)
        low, high = figure.ci95 or (figure.value, figure.value)
        axes.plot([low, high], [position, position], color=_INK, linewidth=1.6)
        axes.text(max(high, figure.value), position, f"  {figure.value:.3g}{unit}", va="center", fontsize=8, color=_INK)
    axes.set_yticks(range(len(figures)), list(figures), fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title(f"{title} (lines: 95 % intervals)", fontsize=9, color=_INK, loc="left")
    _quiet(axes)
    return _picture(sheet)


def curves(points: Sequence[CurvePoint]) -> Image.Image:
    """CLIP score and objects drawn rightly over training steps, a panel per kind of prompt, a line per blend.

    After figures 4 and 5 of the DALL-E 3 report, which show CLIP scores on original and on descriptive captions.
    """
    kinds = [
        (kind, name)
        for name in ("clip_score", "object_accuracy")
        for kind in dict.fromkeys(point.prompts for point in points)
        if any(getattr(point, name) for point in points if point.prompts == kind)
    ]
    if not kinds:
        raise ValueError("no point holds a CLIP score or an object accuracy")
    columns = max(sum(name == other for _, other in kinds) for _, name in kinds)
    num_rows = len({name for _, name in kinds})
    sheet = _sheet(4.2 * columns, 3.0 * num_rows)
    row_of = {name: row for row, name in enumerate(dict.fromkeys(name for _, name in kinds))}
    placed = dict.fromkeys(row_of, 0)
    for kind, name in kinds:
        placed[name] += 1
        axes = sheet.add_subplot(num_rows, columns, row_of[name] * columns + placed[name])
        for model in dict.fromkeys(point.model for point in points):
            chosen = [p for p in points if p.prompts == kind and p.model == model and getattr(p, name)]
            steps, figures = [point.step for point in chosen], [getattr(point, name) for point in chosen]
            color = _COLORS.get(model.removesuffix(LONG), _OTHER_COLOR)
            axes.plot(steps, [one.value for one in figures], marker="o", markersize=3, color=color, label=model)
            bounds = [one.ci95 or (one.value, one.value) for one in figures]
            axes.fill_between(
                steps, [b[0] for b in bounds], [b[1] for b in bounds], color=color, alpha=0.13, linewidth=0
            )
        title = "CLIP score" if name == "clip_score" else "objects drawn rightly"
        axes.set_title(f"{title}, {kind} prompts", fontsize=9, color=_INK, loc="left")
        axes.set_xlabel("training steps", fontsize=8, color=_INK)
        _quiet(axes)
    sheet.axes[0].legend(fontsize=7, frameon=False)
    return _picture(sheet)


def sample_sheet(pictures: Mapping[str, np.ndarray], prompts: Sequence[str]) -> Image.Image:
    """What several models draw for the same prompts: a row for each model, a column for each prompt.

    ``pictures``: uint8 (N, H, W, 3) by model, N the number of prompts; pixels are shown as they are.
    """
    sheet = _sheet(1.25 * len(prompts), 1.15 * len(pictures) + 0.6)
    panels = sheet.subplots(len(pictures), len(prompts), squeeze=False)
    for row, (name, drawn) in zip(panels, pictures.items(), strict=True):
        for axes, picture in zip(row, drawn, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(_GRID)
        row[0].set_ylabel(name.replace(", ", "\n"), fontsize=8, color=_INK)
    for axes, prompt in zip(panels[0], prompts, strict=True):
        axes.set_title(textwrap.fill(prompt, 24).replace("$", r"\$"), fontsize=6, color=_INK)
    return _picture(sheet)


def _importance(name: str) -> tuple[int, str]:
    return (0 if name.endswith("/loss") else 2 if name.endswith("grad_norm") else 1), name


def _sheet(width: float, height: float) -> Sheet:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    sheet = Sheet(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(sheet)
    return sheet


def _quiet(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=_INK)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _picture(sheet: Sheet) -> Image.Image:
    sheet.canvas.draw()
    return Image.fromarray(np.asarray(sheet.canvas.buffer_rgba())).convert("RGB")  # type: ignore[attr-defined]
