"""Evaluated models and their reports, made up: what a gate decides on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.data.lake import Record
from components.evaluation.decoder_gate import DecoderGateConfig, shortcomings
from components.evaluation.figures import DecoderFigures, GenerationFigures, Report
from components.evaluation.intervals import Figure
from components.pipeline.workspace import Workspace

GATED = ("latent_diffusion", "consistency_decoder")


def parents_of(ws: Workspace) -> dict[str, Record]:
    """Records of a newly registered version of each gated model, which is a candidate."""
    records = {}
    for asset in GATED:
        name = ws.registry_name(asset)
        version = ws.tracker.register(name, ws.lake.uri(f"models/{asset}/v"), run=None, tags={}, parents=[])
        ws.tracker.set_alias(version, "candidate")
        records[asset] = Record(
            asset, "model", "scenes", "smoke", "f", "v", f"models/{asset}/v", registry=f"{name}/{version.version}"
        )
    return records


def report_of(clip_score: float, student_fid: float) -> Report:
    figures = {"vae": (2.4, 0.7, 900.0), "teacher": (0.5, 1.0, 20.0), "teacher_2": (0.4, 0.95, 240.0)}
    figures["consistency"] = (student_fid, 0.99, 240.0)
    decoders = {
        name: DecoderFigures(
            num_inference_steps=25 if name == "teacher" else 2,
            fid=Figure(fid, None, 9),
            detail_ratio=Figure(detail, None, 9),
            images_per_second=Figure(rate, None, 9),
        )
        for name, (fid, detail, rate) in figures.items()
    }
    return Report(
        dataset="scenes",
        recipe="smoke",
        atelier_version="0",
        seed=0,
        generation=(
            GenerationFigures(
                model="dsc-95",
                prompts="descriptive",
                upsampled=False,
                decoder="vae",
                num_prompts=9,
                clip_score=Figure(clip_score, (clip_score - 1, clip_score + 1), 9),
            ),
        ),
        decoder=decoders,
        decoder_shortcomings=shortcomings(decoders, DecoderGateConfig()),
    )


def remember(ws: Workspace, promotion: Mapping[str, Any]) -> None:
    """Make the report that promoted the last one."""
    report = Record("evaluation_report", "report", "scenes", "smoke", "f", "v", "reports/v")
    ws.lake.set_current(dataclasses.replace(report, metadata=dict(promotion)))
