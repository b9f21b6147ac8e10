"""What the text-to-image model owes to its parts: the recipe with one part changed, each trained for the same time.

What belongs here: the list of changes, how one is trained and measured, and the table. What does not: blends of
captions (``study``), and models that anything else reads: an ablation leaves figures alone.

Time is what two arms share: the seconds of the prompt upsampler, which is first trained to rewrite captions and whose
encoder reads the prompts, count against the U-Net's. How many steps that leaves is found with a few steps that are
thrown away; steps and figures of each arm lie in ``reports/ablations``, so that what is finished is never done again.

The wording says which descriptive captions and prompts there are: the captioner's, which follow one template, or freely
phrased ones, made from the truth (``scenes`` only).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.contracts import Family, Rows
from components.data.lake import digest_of

from .aside import check_truth, seconds_of_a_step, trained_aside
from .judging import load_judges, reference_rows
from .progress import silence_libraries
from .rows import in_memory, load_rows
from .versions import CODE_VERSIONS
from .workspace import Workspace

if TYPE_CHECKING:
    from components.recipes.recipe import Recipe

log = logging.getLogger(__name__)
PLACE = "reports/ablations"
CODE_VERSION = "2"  # to be raised when arms would be made or measured otherwise
Wording = Literal["template", "free"]
SHOWN = {"object_accuracy": "objects", "scene_accuracy": "whole scenes", "colour": "colour", "place": "place"}


@dataclass(frozen=True, slots=True)
class Ablation:
    """One arm: a name, the recipe's fields that it changes, and how its captions and prompts are worded."""

    name: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    wording: Wording = "template"


_JOINTLY = {"prompt_upsampler.training.num_steps": "0"}
_USUAL_HEADS = {"prompt_upsampler.model.has_offset_heads": "false"}
_ENCODERS: Mapping[str, Mapping[str, str]] = {
    "the recipe: offset heads, first rewrites, then trained on": {},
    "offset heads, trained with the U-Net alone": _JOINTLY,
    "usual heads, first rewrites, then trained on": _USUAL_HEADS,
    "usual heads, trained with the U-Net alone": {**_JOINTLY, **_USUAL_HEADS},
    "offset heads, first rewrites, then frozen": {"latent_diffusion.model.trains_text_encoder": "false"},
}
ABLATIONS: tuple[Ablation, ...] = (
    *(Ablation(name, overrides) for name, overrides in _ENCODERS.items()),
    *(Ablation(name, overrides, "free") for name, overrides in _ENCODERS.items()),
    Ablation("times around the middle", {"latent_diffusion.model.time_mean": "0"}),
    Ablation("twice the transformer layers", {"latent_diffusion.model.num_transformer_layers": "2"}),
)


def study_ablations(ws: Workspace, minutes: float, ablations: Sequence[Ablation] = ABLATIONS) -> dict[str, Any]:
    """Train and measure what is not done yet, each for so many minutes of one worker; all of it as a JSON value.

    It also lies as ``report.json`` and ``table.md`` under ``reports/ablations/latest``. Raises UnfitParent where the
    data set has no ground truth, and ValueError where the time is too short for the text encoder alone.
    """
    check_truth(ws)
    silence_libraries()
    arms = [{**_identity(one), **_Arm(ws, one, 60 * minutes).result()} for one in ablations]
    report = {"dataset": ws.dataset.name, "recipe": ws.recipe.name, "minutes": minutes, "arms": arms}
    ws.lake.write_json(f"{PLACE}/latest/report.json", report)
    ws.lake.write_bytes(f"{PLACE}/latest/table.md", table_of(report).encode())
    return report


def table_of(report: dict[str, Any]) -> str:
    """The ablations as a Markdown table: shares in per cent with 95 % intervals in brackets."""
    from components.evaluation.figures import in_per_cent

    heading = [f"change, {report['minutes']:g} minutes each", "captions", "steps", *SHOWN.values()]
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    for arm in report["arms"]:
        cells = [in_per_cent(arm["figures"][name]) for name in SHOWN]
        lines.append(f"| {arm['name']} | {arm['wording']} | {arm['num_steps']:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


class _Arm:
    """One ablation: its recipe, its rows, its two trainings and its figures."""

    def __init__(self, ws: Workspace, ablation: Ablation, seconds: float) -> None:
        self.ablation, self.seconds = ablation, seconds
        self.ws = ws.with_recipe(ws.recipe.with_overrides(ablation.overrides))
        names = ("training_set", "vae", "attribute_judge", "evaluation_clip")
        parents = [self.ws.parent(name).data_version for name in names]
        sections = [self.recipe.latent_diffusion, self.recipe.prompt_upsampler, self.recipe.evaluation]
        versions = [CODE_VERSIONS[name] for name in ("latent_diffusion", "prompt_upsampler")]
        settings = [section.model_dump(mode="json") for section in sections]
        self.fingerprint = digest_of([parents, settings, versions, ablation.wording, seconds, CODE_VERSION])

    @property
    def unfinished(self) -> str:
        """Where an arm keeps what its resumes need, until its figures stand."""
        return f"{PLACE}/unfinished-{self.fingerprint}"

    @property
    def recipe(self) -> Recipe:
        return self.ws.recipe

    def result(self) -> dict[str, Any]:
        """Steps, seconds and figures, found or made now."""
        path = f"{PLACE}/{self.fingerprint}.json"
        if self.ws.lake.exists(path) and not self.ws.is_forced:
            return self.ws.lake.read_json(path)
        log.info("ablation: %s, %s captions", self.ablation.name, self.ablation.wording)
        rows = load_rows(self.ws, with_recaptions=True, with_latents=True, with_truth=True)
        train, evaluation = self._worded(rows.train), self._worded(rows.evaluation)
        with tempfile.TemporaryDirectory() as temporary:
            encoder, encoder_seconds = self._text_encoder(train, evaluation, Path(temporary))
            parents = {"vae": self.ws.model_folder("vae"), "text_encoder": encoder}
            build = partial(self.recipe.latent_diffusion.model.build, train, evaluation, parents)
            num_steps = self._num_steps(build, encoder_seconds)
            training = self.recipe.latent_diffusion.training.model_copy(update={"num_steps": num_steps})
            place, folder = f"ablation-{self.fingerprint}", Path(temporary) / "pipeline"
            with trained_aside(self.ws, build, training, place, self.ablation.name) as (averaged, seconds):
                averaged.save(folder)
                figures = self._figures(folder, evaluation)
        found = {
            "num_steps": num_steps,
            "seconds": round(seconds, 2),
            "text_encoder_seconds": round(encoder_seconds, 2),
            "figures": figures,
        }
        self.ws.lake.write_json(path, found)
        self.ws.lake.remove_folder(self.unfinished)
        return found

    def _worded(self, rows: Rows) -> Rows:
        if self.ablation.wording == "template":
            return rows
        return replace(rows, texts={**rows.texts, "dsc": _freely(self.ws, rows)})

    def _text_encoder(self, train: Rows, evaluation: Rows, folder: Path) -> tuple[Path, float]:
        """A folder with the text encoder, and the seconds that its training took; made once for a run and its resumes.

        A U-Net that goes on from its checkpoint needs the very encoder that it began with.
        """
        from components.families.prompt_upsampler.sample import extract_text_encoder

        note = f"{self.unfinished}/encoder.json"
        if not self.ws.lake.exists(note):
            section = self.recipe.prompt_upsampler
            build = partial(section.model.build, train, evaluation, {})
            place = f"ablation-encoder-{self.fingerprint}"
            with trained_aside(self.ws, build, section.training, place, "text encoder") as (averaged, seconds):
                averaged.save(folder / "upsampler")
            extract_text_encoder(folder / "upsampler", folder / "text_encoder")
            digest = self.ws.lake.add_folder(self.unfinished, folder / "text_encoder")
            self.ws.lake.write_json(note, {"version": digest, "seconds": seconds})
        made = self.ws.lake.read_json(note)
        return self.ws.lake.fetch_folder(f"{self.unfinished}/{made['version']}", self.ws.scratch), made["seconds"]

    def _num_steps(self, build: Callable[[], Family], spent: float) -> int:
        """Steps of the U-Net that fit into what is left; once found they are kept, for a run that was interrupted."""
        path = f"{self.unfinished}/num_steps.json"
        if self.ws.lake.exists(path):
            return self.ws.lake.read_json(path)
        if spent >= self.seconds:
            raise ValueError(
                f"the text encoder took {spent:.0f} s of {self.seconds:.0f} s, which leaves none for the U-Net: "
                "give more minutes"
            )
        each = seconds_of_a_step(build, self.recipe.latent_diffusion.training)
        num_steps = max(1, round((self.seconds - spent) / each))
        self.ws.lake.write_json(path, num_steps)
        return num_steps

    def _figures(self, folder: Path, evaluation: Rows) -> dict[str, Any]:
        from components.data import scenes as world
        from components.evaluation.figures import values_of
        from components.evaluation.measurement import PromptSet, evaluate_generation
        from components.families.latent_diffusion.sample import generate, load_pipeline

        config = self.recipe.evaluation
        rows = in_memory(evaluation, config.num_prompts)
        scenes = rows.scenes or ()
        is_free = self.ablation.wording == "free"
        texts = _freely(self.ws, rows) if is_free else world.prompts("descriptive", scenes)
        prompts = PromptSet("descriptive", texts, [world.facts_of(scene) for scene in scenes])
        pixels = generate(
            load_pipeline(folder),
            texts,
            [config.seed + number for number in range(len(texts))],
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            batch_size=config.batch_size,
        )
        judges = load_judges(self.ws, reference_rows(evaluation, config))[0]
        figures = evaluate_generation(pixels, prompts, judges, model=self.ablation.name, decoder="vae", upsampled=False)
        return values_of(figures)


def _identity(ablation: Ablation) -> dict[str, Any]:
    return {"name": ablation.name, "wording": ablation.wording, "overrides": dict(ablation.overrides)}


def _freely(ws: Workspace, rows: Rows) -> list[str]:
    from components.data import scenes as world

    pairs = zip(rows.keys, rows.scenes or (), strict=True)
    return [world.freely_phrased(scene, world.index_of(str(key)), ws.dataset.scene_seed) for key, scene in pairs]
