"""The named jobs of the graph, and the order in which ``atelier demo`` launches them.

What belongs here: which assets a job materializes and which jobs it waits for. What does not: launching (``launch``).
Assets with and without partitions cannot share a run (a range run yields shards, not one output), so each job has one
kind of asset. Of the jobs that could start, the first in this list does: long trainings stand before short ones.
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from components.pipeline.study import DEMO_ARM


@dataclass(frozen=True, slots=True)
class NamedJob:
    """A job of the graph; ``after`` names the jobs that must have succeeded before it can start."""

    name: str
    assets: tuple[str, ...]
    description: str
    after: tuple[str, ...] = ()
    is_sharded: bool = False
    partition: str | None = None  # of an asset whose partitions are not shards

    @property
    def label(self) -> str:
        """What the terminal calls one run of the job."""
        return self.name if self.partition is None else f"{self.name} {self.partition}"

    def define(self) -> Any:
        """The Dagster job."""
        return dg.define_asset_job(self.name, selection=list(self.assets), description=self.description)


JOBS = (
    NamedJob("ingest", ("raw_pairs",), "Read and check every shard of the source.", is_sharded=True),
    NamedJob("images", ("image_set",), "Write the manifest of all pictures.", after=("ingest",)),
    NamedJob(
        "captioners",
        ("clip", "base_captioner", "ssc_captioner", "dsc_captioner", "champion_captioners"),
        "Train CLIP and the captioners and choose the champions.",
        after=("images",),
    ),
    NamedJob("autoencoder", ("vae",), "Train the VAE.", after=("images",)),
    NamedJob("recaption", ("recaptioned",), "Write captions for every shard.", after=("captioners",), is_sharded=True),
    NamedJob("encode", ("latents",), "Cache the latents of every shard.", after=("autoencoder",), is_sharded=True),
    NamedJob(
        "text",
        ("training_set", "prompt_upsampler", "text_encoder"),
        "Write the manifest of captions and train the text encoder.",
        after=("recaption",),
    ),
    NamedJob("diffusion", ("latent_diffusion",), "Train the text-to-image model.", after=("text", "encode")),
    NamedJob(
        "judges",
        ("evaluation_clip", "attribute_judge", "second_judge"),
        "Train the independent judges.",
        after=("images",),
    ),
    NamedJob("decoder", ("diffusion_decoder",), "Train the diffusion decoder.", after=("encode",)),
    NamedJob(
        "study",
        ("caption_blend_study",),
        "Train the text-to-image model on another blend of captions; the demo's is raw captions alone.",
        after=("text", "encode", "judges"),
        partition=DEMO_ARM,
    ),
    NamedJob(
        "distillation",
        ("consistency_decoder",),
        "Distil the diffusion decoder to two steps.",
        after=("decoder",),
    ),
    NamedJob(
        "report",
        ("evaluation_report",),
        "Measure everything and write the report.",
        after=("diffusion", "judges", "study", "distillation"),
    ),
)
BY_NAME = {job.name: job for job in JOBS}
