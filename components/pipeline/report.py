"""``evaluation_report``: sample from the trained models, measure everything, write the report, choose champions.

What belongs here: which pictures and captions are made for the report, and whether a candidate becomes champion. What
does not: metrics and their intervals, the wording of the verdict, the page (``components.evaluation``).
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from components.contracts import ModelVersion, Rows
from components.data.lake import Record, digest_of
from components.data.pictures import captioned_grid, grid, png_bytes

from .costs import by_asset, track_costs, version_cost
from .cross_checks import Readings, suite_figures, upsampling_figures
from .decoding import load_decoders, measure_decoders
from .judging import (
    RELATIONS,
    blend_name,
    final_prompt_sets,
    load_judges,
    load_second_reader,
    load_suites,
    load_upsampler,
    prompt_sets,
    reference_rows,
    upsampler_settings,
)
from .progress import silence_libraries
from .provenance import git_commit
from .rows import in_memory, load_rows, subset
from .study import UPSAMPLED, finished_arms, read_drawn
from .train import STAGES
from .withdrawals import withdrawn
from .workspace import Made, Outcome, Workspace, kind_of

log = logging.getLogger(__name__)
NUM_SIDE_BY_SIDE = 8  # pictures in samples.png
Score = list[float]  # a figure's value and the bounds of its 95 % interval, as records keep it
REAL = "real pictures"  # beside models, where distances are compared


def evaluate(ws: Workspace) -> Outcome:
    """Measure the current versions of all models on held-out pictures and prompts, and write the report."""
    parents = {name: ws.parent(name) for name in ("image_set", "training_set", "champion_captioners", *STAGES)}
    inputs = {name: record.data_version for name, record in parents.items()}
    arms = finished_arms(ws)
    inputs |= {f"{record.asset}[{record.shard}]": record.data_version for each in arms.values() for record in each}
    settings = {
        "evaluation": ws.recipe.evaluation.model_dump(mode="json"),
        "decoder_gate": ws.recipe.decoder_gate.model_dump(mode="json"),
        "fit": ws.recipe.data.fit,
        "upsampler": upsampler_settings(ws),
        "arms": {record.shard: record.fingerprint for each in arms.values() for record in each},
    }
    outcome = ws.materialize("evaluation_report", inputs, settings, lambda _: _Evaluation(ws, parents, arms).run())
    return track_costs(ws, outcome)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Pictures made for one kind of prompt, through both decoders: uint8 (N, H, W, 3)."""

    prompts: Any  # evaluation.measurement.PromptSet
    written: Sequence[str]  # what the model was asked: the prompts, or the upsampler's rewriting of them
    is_upsampled: bool
    pixels: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        """The kind of prompt, upsampled or not, as the study's arms name it."""
        return UPSAMPLED if self.is_upsampled else str(self.prompts.kind)


class _Evaluation:
    """One evaluation: the held-out rows, the judges and the models, loaded once."""

    def __init__(self, ws: Workspace, parents: Mapping[str, Record], arms: Mapping[str, Sequence[Record]]) -> None:
        import torch

        from components.families.latent_diffusion.sample import load_pipeline

        silence_libraries()
        torch.set_num_threads(ws.recipe.evaluation.num_threads)
        self.ws, self.parents, self.arms, self.config = ws, parents, arms, ws.recipe.evaluation
        split = load_rows(ws, with_recaptions=True, with_latents=True, with_truth=True)
        rows, kind = split.evaluation, ws.recipe.latent_diffusion.model.synthetic_kind
        self.captions = [text for text in split.train.texts[kind] if text]  # that the model was trained on
        self.rows: Rows = in_memory(rows, self.config.num_pictures)
        self.other_rows: Rows = in_memory(split.train, min(len(rows), self.config.num_prompts))
        self.judges, self.feature_extractor = load_judges(ws, reference_rows(rows, self.config))
        self.second_reader = load_second_reader(ws)
        self.pipeline = load_pipeline(ws.model_folder("latent_diffusion"))
        self.decoders = load_decoders(
            *map(ws.model_folder, ("vae", "diffusion_decoder", "consistency_decoder")), config=self.config
        )

    def run(self) -> Made:
        """All figures, the page, the promotion."""
        from components.evaluation.decoder_gate import shortcomings
        from components.evaluation.figures import Report
        from components.evaluation.measurement import evaluate_judge
        from components.evaluation.verdict import verdict

        samples = self.sample()
        judge = evaluate_judge(self.judges, self.rows.pixels, self.rows.scenes) if self.rows.scenes else None
        second = replace(self.judges, read=self.second_reader)
        second_judge = evaluate_judge(second, self.rows.pixels, self.rows.scenes) if self.rows.scenes else None
        costs = {one.asset: one for one in by_asset(self.behind())}
        decoded = self.decode()
        readings = None
        if self.judges.read and self.second_reader:
            readings = Readings(self.judges.read, self.second_reader, samples)
        report = Report(
            dataset=self.ws.dataset.name,
            recipe=self.ws.recipe.name,
            atelier_version=version("atelier"),
            git_commit=git_commit(),
            seed=self.config.seed,
            seconds={name: one.seconds for name, one in costs.items()},
            cpu_seconds={name: one.cpu_seconds for name, one in costs.items()},
            gpu_seconds={name: one.gpu_seconds for name, one in costs.items()},
            peak_memory_gib={name: one.peak_memory_gib for name, one in costs.items()},
            cost={name: one.cost for name, one in costs.items()},
            feature_extractor=self.feature_extractor,
            judge=judge,
            second_judge=second_judge,
            judges_agree=readings.agreement() if readings else {},
            captions=self.caption_figures(),
            generation=tuple(self.generation_figures(samples)),
            upsampling=upsampling_figures(samples, self.captions, self.config),
            suites=tuple(self.suites()),
            curves=tuple(self.curves()),
            decoder=self.decoder_figures(decoded, samples),
            models=self.model_records(),
        )
        found = shortcomings(report.decoder, self.ws.recipe.decoder_gate)
        report = report.model_copy(update={"decoder_shortcomings": found})
        report = report.model_copy(update={"verdict": verdict(report)})
        return self.keep(report, samples, decoded, readings)

    # ---------------------------------------------------------------------------------------------------- captions
    def caption_figures(self) -> dict[str, Any]:
        from components.data import scenes as world
        from components.evaluation.intervals import Figure
        from components.evaluation.measurement import evaluate_captions

        figures = {}
        for name, kind in (("raw", "caption"), ("ssc", "ssc"), ("dsc", "dsc")):
            chosen = [i for i, text in enumerate(self.rows.texts[kind]) if text is not None]
            rows = subset(self.rows, np.array(chosen, dtype=np.int64))
            expected = None
            if rows.scenes is not None:
                write = world.ssc if kind == "ssc" else world.dsc
                expected = [
                    world.facts_of(scene) if kind != "ssc" else world.parse_facts(write(scene)) for scene in rows.scenes
                ]
            rate = self._captioning_rate() if name != "raw" else None
            counts = self._rows_by_origin(kind) if name != "raw" else {}
            figures[name] = evaluate_captions(
                [str(text) for text in rows.texts[kind]],
                rows.pixels,
                self.judges,
                scenes=rows.scenes,
                expected=expected,
                images_per_second=Figure(rate[0], None, rate[1]) if rate else None,
            ).model_copy(update=counts)
        return figures

    def _captioning_rate(self) -> tuple[float, int] | None:
        """Pictures a second, both captions and their scores written, over the wall time of shards made from nothing."""
        whole = [
            record
            for record in self.ws.lake.records("recaptioned").values()
            if not record.metadata.get("ssc_reused") and not record.metadata.get("dsc_reused")
        ]
        seconds, num_rows = sum(r.seconds for r in whole), sum(r.num_rows or 0 for r in whole)
        return (num_rows / seconds, num_rows) if seconds > 0 else None

    def _rows_by_origin(self, kind: str) -> dict[str, int]:
        """How many rows of a kind were written and how many reused when the shards were last made."""
        records = self.ws.lake.records("recaptioned").values()
        counts = ("written", "reused")
        return {f"rows_{how}": sum(r.metadata.get(f"{kind}_{how}", 0) for r in records) for how in counts}

    # -------------------------------------------------------------------------------------------------- generation
    def sample(self) -> list[Sampled]:
        """Pictures for short prompts (as they are and upsampled) and for descriptive ones."""
        upsample = load_upsampler(self.ws)
        sampled = []
        for prompts in final_prompt_sets(self.rows, self.config.num_prompts):
            sampled.append(self.draw(prompts, prompts.texts, is_upsampled=False))
            if prompts.kind == "short" and upsample is not None:
                sampled.append(self.draw(prompts, upsample(prompts.texts), is_upsampled=True))
        return sampled

    def draw(self, prompts: Any, written: Sequence[str], *, is_upsampled: bool) -> Sampled:
        from components.families.latent_diffusion.sample import generate_latents

        config = self.config
        log.info("sampling %d %s prompts%s", len(written), prompts.kind, " (upsampled)" if is_upsampled else "")
        latents = generate_latents(
            self.pipeline,
            written,
            [config.seed + i for i in range(len(written))],
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            batch_size=config.batch_size,
        )
        pixels = {name: self.decoders[name].decode(latents) for name in ("vae", "consistency")}
        return Sampled(prompts, written, is_upsampled, pixels)

    @property
    def model_name(self) -> str:
        """The blend that the model was trained on, for example ``dsc-95``."""
        return blend_name(self.ws.recipe.latent_diffusion.model)

    def generation_figures(self, samples: Sequence[Sampled]) -> list[Any]:
        """The main model through both decoders, then every other blend that the study has trained."""
        from components.evaluation.measurement import evaluate_generation

        own = [
            evaluate_generation(
                pixels,
                sampled.prompts,
                self.judges,
                model=self.model_name,
                decoder=decoder,
                upsampled=sampled.is_upsampled,
            )
            for sampled in samples
            for decoder, pixels in sampled.pixels.items()
        ]
        return own + [row for blend, records in self.arms.items() for row in self._arm_rows(blend, records, samples)]

    def _arm_rows(self, blend: str, records: Sequence[Record], samples: Sequence[Sampled]) -> list[Any]:
        from components.evaluation.figures import GenerationFigures
        from components.evaluation.intervals import across_seeds

        is_main = blend == self.model_name
        if is_main and [record.data_version for record in records] == [self.parents["latent_diffusion"].data_version]:
            return []  # the main model itself, trained once more
        rows = []
        for sampled in samples:
            measured = [figures_from(record.metadata["figures"][sampled.name]) for record in records]
            rows.append(
                GenerationFigures(
                    model=blend,
                    prompts=sampled.prompts.kind,
                    upsampled=sampled.is_upsampled,
                    decoder="vae",
                    num_prompts=len(sampled.prompts.texts),
                    num_seeds=len(records),
                    is_study=is_main,
                    **{field: across_seeds([one[field] for one in measured]) for field in measured[0]},
                )
            )
        return rows

    def curves(self) -> list[Any]:
        """The arms of the study over their training steps, as means over seeds."""
        from components.evaluation.figures import CurvePoint
        from components.evaluation.intervals import across_seeds

        points = []
        for blend, records in self.arms.items():
            for position, point in enumerate(records[0].metadata["curve"]):
                measured = [figures_from(record.metadata["curve"][position]["figures"]) for record in records]
                fields = [name for name in measured[0] if name in CurvePoint.model_fields]
                points.append(
                    CurvePoint(
                        model=blend,
                        prompts=point["prompts"],
                        step=point["step"],
                        num_seeds=len(records),
                        **{name: across_seeds([one[name] for one in measured]) for name in fields},
                    )
                )
        return points

    def score_of(self, version: ModelVersion) -> Score | None:
        """The score of an earlier model on this report's prompts; None where its files are gone."""
        from components.evaluation.measurement import evaluate_generation
        from components.families.latent_diffusion.sample import generate, load_pipeline

        path = f"{self.ws.lake.place('latent_diffusion', 'model')}/{version.uri.rpartition('/')[2]}"
        if not any(self.ws.lake.files(path)):
            return None
        log.info("%s is measured again: prompts or judge are not those of its own report", version)
        described = final_prompt_sets(self.rows, self.config.num_prompts)[-1]
        pixels = generate(
            load_pipeline(self.ws.lake.fetch_folder(path, self.ws.scratch)),
            described.texts,
            [self.config.seed + number for number in range(len(described.texts))],
            num_inference_steps=self.config.num_inference_steps,
            guidance_scale=self.config.guidance_scale,
            batch_size=self.config.batch_size,
        )
        figures = evaluate_generation(pixels, described, self.judges, model="champion", decoder="vae")
        return _as_score(figures.clip_score)

    def suites(self) -> Iterator[Any]:
        """The main model on prompt suites."""

        def pictures(prompts: Any) -> np.ndarray:
            return self.draw(prompts, prompts.texts, is_upsampled=False).pixels["vae"]

        return suite_figures(load_suites(self.ws), pictures, self.judges, self.config.num_suite_prompts)

    # ----------------------------------------------------------------------------------------------------- decoder
    def decode(self) -> dict[str, np.ndarray]:
        """Held-out pictures, encoded and decoded again by each decoder: uint8 (N, H, W, 3) by its name."""
        latents = np.asarray(self.rows.latents)
        return {name: decoder.decode(latents) for name, decoder in self.decoders.items()}

    def decoder_figures(self, decoded: Mapping[str, np.ndarray], samples: Sequence[Sampled]) -> Any:
        from components.evaluation.measurement import evaluate_decoded_generations

        descriptive = next(s for s in samples if s.prompts.kind == "descriptive")
        generated = {
            name: evaluate_decoded_generations(pixels, descriptive.prompts, self.judges)
            for name, pixels in descriptive.pixels.items()
        }
        return measure_decoders(self.decoders, decoded, self.rows, self.judges, self.config, generated)

    # ------------------------------------------------------------------------------------------------------- lineage
    def behind(self) -> list[Record]:
        """The versions that the report is about: shards, manifests, models and arms."""
        records: list[Record] = []
        for asset in ("raw_pairs", "recaptioned", "latents", "text_encoder", *self.parents):
            is_table = kind_of(asset) == "table"
            records += self.ws.lake.records(asset).values() if is_table else [self.ws.parent(asset)]
        return records + [record for arms in self.arms.values() for record in arms]

    def model_records(self) -> dict[str, Any]:
        from components.evaluation.figures import ModelRecord

        records = {name: self.ws.parent(name) for name in (*STAGES, "text_encoder")}
        return {
            name: ModelRecord(
                registry=record.registry,
                uri=self.ws.lake.uri(record.path),
                parents=tuple(f"{parent}={value}" for parent, value in record.inputs.items()),
                cost=version_cost(self.ws.lake, record).total.cost,
            )
            for name, record in records.items()
            if record.registry
        }

    # ---------------------------------------------------------------------------------------------------- the report
    def keep(
        self,
        report: Any,
        samples: Sequence[Sampled],
        decoded: Mapping[str, np.ndarray],
        readings: Readings | None,
    ) -> Made:
        from components.evaluation import blend_study
        from components.evaluation.plots import sample_sheet
        from components.evaluation.report import render_html

        examples = self.examples(report, samples, decoded)
        drawn = {title: examples.plots[title] for title in blend_study.CURVES if title in examples.plots}
        described = next(shown for shown in examples.generation if shown.title == "descriptive prompts")
        content = {f"{title.lower().replace(' ', '-')}.png": png_bytes(plot) for title, plot in drawn.items()}
        content["samples.png"] = png_bytes(sample_sheet(*first_samples(described)))
        disagreements = readings and readings.disagreements(self.config.num_shown)
        page = render_html(report, replace(examples, disagreements=disagreements))
        place = self.ws.lake.place("evaluation_report", "report")
        content |= {"index.html": page.encode(), "report.json": report.to_json().encode()}
        content["blend_study.md"] = blend_study.to_markdown(report).encode()
        with tempfile.TemporaryDirectory() as temporary:
            for name, data in content.items():
                (Path(temporary) / name).write_bytes(data)
            digest = self.ws.lake.add_folder(place, Path(temporary))
        for name, data in content.items():
            self.ws.lake.write_bytes(f"{place}/latest/{name}", data)
        promotion = promote(self.ws, self.parents, report, self.score_of)
        run = self.ws.tracker.start(
            self.ws.registry_name("evaluation_report"),
            self.config.model_dump(mode="json"),
            {**self.ws.run_tags, "asset": "evaluation_report", "recipe": self.ws.recipe.name},
        )
        run.log_metrics(report.metrics())
        run.log_text(page, "index.html")
        self.ws.tracker.finish(run)
        return Made(
            data_version=digest,
            path=f"{place}/{digest}",
            metadata={
                "verdict_in_words": " ".join(report.verdict),
                "upsampling": report.upsampling.model_dump(mode="json") if report.upsampling else None,
                **promotion,
                "html": self.ws.lake.uri(f"{place}/latest/index.html"),
                "first_pictures": pictures_digest(samples, self.config.batch_size),
                "figures": {name: round(value, 5) for name, value in report.metrics().items()},
                "fid": self.distances(report),
                "mlflow_run": run.run_id,
            },
            pictures=self.pictures(samples, decoded),
        )

    def examples(self, report: Any, samples: Sequence[Sampled], decoded: Mapping[str, np.ndarray]) -> Any:
        """What the page shows: captions, the same prompts through both decoders, decoded pictures enlarged, losses."""
        from components.evaluation.report import CaptionExample, Examples, Gallery

        shown = self.config.num_shown
        drawn = {
            blend: read_drawn(self.ws, records[0])
            for blend, records in self.arms.items()
            if blend in ("raw", "oracle") and blend != self.model_name
        }
        kinds = {"raw": "caption", "ssc": "ssc", "dsc": "dsc"}
        return Examples(
            captions=[
                CaptionExample(
                    self.rows.pixels[i], {name: self.rows.texts[kind][i] or "" for name, kind in kinds.items()}
                )
                for i in range(min(shown, len(self.rows)))
            ],
            generation=[
                Gallery(
                    f"{sampled.prompts.kind} prompts{', upsampled' if sampled.is_upsampled else ''}",
                    sampled.written[:shown],
                    {
                        **{blend: pictures[sampled.name][:shown] for blend, pictures in drawn.items()},
                        **{f"{self.model_name}, {name}": pixels[:shown] for name, pixels in sampled.pixels.items()},
                    },
                )
                for sampled in samples
            ],
            decoder=Gallery(
                "Held-out pictures, encoded and decoded",
                [self.rows.texts["caption"][i] or "" for i in range(min(6, len(self.rows)))],
                {"original": self.rows.pixels[:6], **{name: pixels[:6] for name, pixels in decoded.items()}},
            ),
            plots=self._plots(report),
        )

    def distances(self, report: Any) -> dict[str, list[float]]:
        """FID of each model's pictures, and of as many real ones of the training split, with its interval.

        As many, because FID falls with the number of pictures; generated ones cannot lie clearly nearer to the
        held-out pictures than real ones.
        """
        from components.evaluation.fid import fid

        found = {
            f"{one.model}, {one.prompts}{' upsampled' if one.upsampled else ''}, {one.decoder}": one.fid
            for one in report.generation
            if one.fid is not None and one.num_prompts == len(self.other_rows)
        }
        reference = self.judges.reference
        if reference is not None:
            found[REAL] = fid(reference.extract(self.other_rows.pixels), reference.features)
        return {
            name: [round(value, 5) for value in (one.value, *(one.ci95 or (one.value, one.value)))]
            for name, one in found.items()
        }

    def _plots(self, report: Any) -> dict[str, Any]:
        from components.evaluation.blend_study import CURVES
        from components.evaluation.plots import curves, interval_bars, loss_curves

        plots = {}
        for title, models in CURVES.items():
            points = [point for point in report.curves if point.model in models]
            if len({point.model for point in points}) > 1:
                plots[title] = curves(points)
        for prompts in dict.fromkeys(one.prompts for one in report.generation):
            rows = [one for one in report.generation if one.prompts == prompts and one.decoder == "vae"]
            bars = {one.model: one.clip_score for one in rows if not one.upsampled and one.clip_score}
            if len(bars) > 1:
                plots[f"Caption blends, {prompts} prompts"] = interval_bars(bars, f"CLIP score, {prompts} prompts")
        relations = {
            one.model: one.relation
            for one in report.generation
            if one.prompts == RELATIONS and one.decoder == "vae" and one.relation
        }
        if relations:
            plots["Relations, by captions learned from"] = interval_bars(
                relations, "left of, above: relations that hold"
            )
        histories = {name: self.parents[name].metadata.get("losses") or [] for name in ("latent_diffusion", "vae")}
        return plots | {
            f"{name}: losses": loss_curves(history) for name, history in histories.items() if len(history) > 1
        }

    def pictures(self, samples: Sequence[Sampled], decoded: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Grids for the asset's page in the Dagster UI."""
        descriptive = next(s for s in samples if s.prompts.kind == "descriptive")
        shown = min(8, len(descriptive.written))
        stacked = np.concatenate([self.rows.pixels[:8], *(pixels[:8] for pixels in decoded.values())])
        return {
            "generated": captioned_grid(descriptive.pixels["vae"][:shown], descriptive.written[:shown]),
            "decoded": grid(stacked, columns=min(8, len(self.rows)), scale=3),
        }


def first_samples(gallery: Any) -> tuple[dict[str, np.ndarray], Sequence[str]]:
    """The first pictures of a gallery by model, and their prompts: as many as fit side by side."""
    pictures = {name: pixels[:NUM_SIDE_BY_SIDE] for name, pixels in gallery.pixels.items()}
    return pictures, gallery.texts[:NUM_SIDE_BY_SIDE]


def promote(
    ws: Workspace,
    parents: Mapping[str, Record],
    report: Any,
    measure: Callable[[ModelVersion], Score | None] = lambda _: None,
) -> dict[str, Any]:
    """Let each gated model that passes its own gate become champion; what the report's record keeps of it.

    ``champions`` names those that passed. The text-to-image model passes unless the champion (whose score is
    ``champion_score``) is clearly above it; the student passes where ``report.decoder_shortcomings`` is empty. Neither
    gate looks at the other model, and neither promotes a version that was rolled back. A champion that was measured on
    other prompts, or by another judge, is measured again with ``measure``; where that gives None, nothing stands
    against the candidate.
    """
    yardstick = _yardstick(ws, parents)
    held, score = _score_to_beat(ws, yardstick, measure), _score(report)
    against: dict[str, list[str]] = {"latent_diffusion": [], "consistency_decoder": list(report.decoder_shortcomings)}
    if held and score and held[1] > score[2]:
        against["latent_diffusion"].append(
            f"its CLIP score {score[0]:.1f} lies clearly below the champion's {held[0]:.1f}"
        )
    for asset, found in against.items():
        if rollback := withdrawn(ws.lake, asset).get(parents[asset].data_version):
            found.append(f"this version was {rollback}; train another, or name it: atelier rollback {asset} --to ...")
        for reason in found:
            log.warning("%s stays a candidate: %s", asset, reason)
    champions = [asset for asset, found in against.items() if not found and parents[asset].registry]
    for asset in champions:
        ws.tracker.set_alias(ws.registered(parents[asset]), "champion")
    return {
        "champions": champions,
        "stays_a_candidate_because": {asset: found for asset, found in against.items() if found},
        "score": score,
        "champion_score": score if "latent_diffusion" in champions else held,
        "yardstick": yardstick,
        "decoder_shortcomings": list(report.decoder_shortcomings),
    }


def _yardstick(ws: Workspace, parents: Mapping[str, Record]) -> str:
    """Names prompts, judge and sampling: scores compare where it is the same."""
    config = ws.recipe.evaluation
    versions = {name: parents[name].data_version for name in ("image_set", "evaluation_clip") if name in parents}
    return digest_of([versions, config.num_prompts, config.num_inference_steps, config.guidance_scale, config.seed])


def _score_to_beat(ws: Workspace, yardstick: str, measure: Callable[[ModelVersion], Score | None]) -> Score | None:
    """The champion's score by this yardstick, from the last report on it or measured now."""
    champion = ws.tracker.by_alias(ws.registry_name("latent_diffusion"), "champion")
    if champion is None:
        return None
    version = champion.uri.rpartition("/")[2]
    reports = list(ws.lake.versions("evaluation_report", "report"))
    for report in reports:  # after a rollback it is not the last one
        if report.inputs.get("latent_diffusion") == version and report.metadata.get("yardstick") == yardstick:
            return report.metadata["score"]
    if reports and reports[0].metadata.get("yardstick") == yardstick:
        return reports[0].metadata["champion_score"]
    return measure(champion)


def _score(report: Any) -> Score | None:
    """CLIP score of descriptive prompts through the plain decoder: what decides on champions."""
    rows = [one for one in report.generation if one.prompts == "descriptive" and one.decoder == "vae"]
    return _as_score(rows[0].clip_score) if rows else None


def _as_score(figure: Any) -> Score | None:
    return [figure.value, *(figure.ci95 or (figure.value, figure.value))] if figure else None


def figures_from(values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Figures as a record keeps them, back from value, interval and number of samples."""
    from components.evaluation.intervals import Figure

    return {
        name: Figure(value, tuple(interval) if interval else None, num_samples)
        for name, (value, interval, num_samples) in values.items()
    }


def pictures_digest(samples: Sequence[Sampled], num_pictures: int) -> str:
    """Digest of the first pictures of descriptive prompts (16 hexadecimal digits); one batch, for ``verify``."""
    described = next(sampled for sampled in samples if sampled.prompts.kind == "descriptive")
    return hashlib.sha256(described.pixels["vae"][:num_pictures].tobytes()).hexdigest()[:16]


def draw_first_pictures(ws: Workspace) -> str:
    """:func:`pictures_digest` of the same pictures, drawn again."""
    evaluation = _Evaluation(ws, {}, {})
    described = prompt_sets(evaluation.rows, ws.recipe.evaluation.num_prompts)[-1]
    count = min(ws.recipe.evaluation.batch_size, len(described.texts))
    first = replace(described, texts=described.texts[:count], facts=None)
    return pictures_digest([evaluation.draw(first, first.texts, is_upsampled=False)], count)
