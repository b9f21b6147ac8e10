"""What the study of the diffusion decoder and its student found: typed, as JSON and as a Markdown table.

What belongs here: the fields, means over seeds, and the table. What does not: training and measuring (the pipeline).
"""

import json
from typing import Any

from pydantic import Field

from components.contracts import Frozen

from .figures import DecoderFigures, figures_of
from .intervals import Figure, across_seeds

NAMES = {
    "vae": "VAE",
    "teacher": "diffusion decoder, the teacher",
    "teacher_2": "the teacher in two steps, undistilled",
    "consistency": "**consistency decoder, the student**",
    "control": "a teacher of as many steps as both, undistilled in two",
}
_COLUMNS = ("PSNR, dB", "FID", "fine detail", "scenes right", "pictures/s")


class StudiedSeed(Frozen):
    """One teacher with its student and their control."""

    seed: int
    steps: dict[str, int] = Field(description="Training steps of teacher, student and control.")
    seconds: dict[str, float] = Field(description="Wall seconds of each training's last attempt, loading included.")
    figures: dict[str, DecoderFigures] = Field(description="By decoder.")
    shortcomings: tuple[str, ...] = Field(description="What the student failed its gate by.")


class DecoderStudy(Frozen):
    """All seeds on the same VAE, latents, judges and held-out pictures."""

    dataset: str
    recipe: str
    atelier_version: str
    git_commit: str | None = None
    rows: str = Field(description="reported, or choosing: held-out rows beside the reported ones.")
    num_pictures: int
    sections: dict[str, Any] = Field(description="The recipe's sections of teacher and student.")
    seeds: tuple[StudiedSeed, ...]

    def figures(self) -> dict[str, DecoderFigures]:
        """Means over seeds by decoder, with intervals that hold the spread of seeds."""
        return {name: _mean([seed.figures[name] for seed in self.seeds]) for name in self.seeds[0].figures}

    def to_json(self) -> str:
        """Everything, and the means; fields that were not measured are absent."""
        values = self.model_dump(mode="json", exclude_none=True)
        values["figures"] = {
            name: one.model_dump(mode="json", exclude_none=True) for name, one in self.figures().items()
        }
        return json.dumps(values, indent=1, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """One row for each decoder, the mean over seeds and the reach of its 95 % interval; then the gate's answers."""
        lines = [
            f"| decoder, {self.num_pictures} held-out pictures, {len(self.seeds)} seeds | steps | "
            + " | ".join(_COLUMNS)
            + " |",
            "|---|---|" + "---|" * len(_COLUMNS),
        ]
        for name, one in self.figures().items():
            cells = [
                _cell(one.psnr, "{:.1f}"),
                _cell(one.fid, "{:.3g}"),
                _cell(one.detail_ratio, "{:.1f} %", 100),
                _cell(one.scene_accuracy, "{:.1f} %", 100),
                _cell(one.images_per_second, "{:.0f}"),
            ]
            lines.append(f"| {NAMES[name]} | {one.num_inference_steps} | " + " | ".join(cells) + " |")
        lines.append("")
        for seed in self.seeds:
            said = "; ".join(seed.shortcomings)
            lines.append(f"Seed {seed.seed}: " + (f"stays a candidate: {said}." if said else "passes its gate."))
        return "\n".join(lines) + "\n"


def _mean(figures: list[DecoderFigures]) -> DecoderFigures:
    measured = [dict(figures_of(one)) for one in figures]
    means: dict[str, Any] = {name: across_seeds([one[name] for one in measured]) for name in measured[0]}
    return DecoderFigures(num_inference_steps=figures[0].num_inference_steps, **means)


def _cell(figure: Figure | None, form: str, scale: float = 1.0) -> str:
    if figure is None:
        return "-"
    value = form.format(scale * figure.value)
    if figure.ci95 is None:
        return value
    reach = max(figure.value - figure.ci95[0], figure.ci95[1] - figure.value)
    half = form.removesuffix(" %").format(scale * reach)
    return f"{value.removesuffix(' %')} ± {half}" + (" %" if value.endswith(" %") else "")
