"""Whether the two-step student may become champion: thresholds, and what a student fails by.

What belongs here: comparing the figures of decoders. What does not: measuring them (``measurement``) and the registry's
aliases (the pipeline). PSNR takes no part, because it rewards blur.
"""

from collections.abc import Callable, Iterator, Mapping

from pydantic import Field

from components.contracts import Frozen

from .figures import DecoderFigures
from .intervals import Figure

STUDENT, TEACHER, UNDISTILLED, VAE = "consistency", "teacher", "teacher_2", "vae"  # names in ``Report.decoder``


class DecoderGateConfig(Frozen):
    """What the student must show on held-out pictures."""

    max_fid_ratio: float = Field(default=1.1, description="FID over that of the teacher in many steps, at most.", gt=0)
    min_detail_ratio: float = Field(default=0.8, description="Fine detail over the originals', at least.", ge=0)
    max_detail_ratio: float = Field(default=1.25, description="Fine detail over the originals', at most.", gt=0)
    max_scene_loss: float = Field(
        default=0.02, description="Share of scenes that may be lost against the teacher in many steps.", ge=0
    )
    max_scene_loss_to_vae: float = Field(
        default=0.01, description="Share of scenes that may be lost against the VAE's decoder.", ge=0
    )
    min_speedup: float = Field(
        default=10.0, description="Pictures per second over those of the teacher in many steps, at least.", ge=0
    )
    must_beat_undistilled: bool = Field(
        default=True, description="Better FID and a detail ratio nearer to 1 than the teacher in two steps."
    )
    must_beat_vae: bool = Field(
        default=True, description="No worse FID and a detail ratio nearer to 1 than the VAE's decoder."
    )


def shortcomings(decoders: Mapping[str, DecoderFigures], config: DecoderGateConfig) -> tuple[str, ...]:
    """What keeps the student from becoming champion, one sentence for each figure; empty where it passes.

    A figure that was not measured (scenes of a data set without truth) is not asked for. KeyError where a decoder is
    missing.
    """
    student, teacher = decoders[STUDENT], decoders[TEACHER]
    return (
        *_against_teacher(student, teacher, config),
        *_detail_within(student.detail_ratio, config),
        *(_against_undistilled(student, decoders[UNDISTILLED]) if config.must_beat_undistilled else ()),
        *_against_vae(student, decoders[VAE], config),
    )


def _against_teacher(student: DecoderFigures, teacher: DecoderFigures, config: DecoderGateConfig) -> Iterator[str]:
    limit = config.max_fid_ratio
    yield from _unless(
        lambda ours, theirs: ours <= limit * theirs,
        student.fid, teacher.fid,
        f"FID {{:.3g}} is above {limit:g} times the teacher's {{:.3g}} in {teacher.num_inference_steps} steps",
    )  # fmt: skip
    yield from _unless(
        lambda ours, theirs: ours >= theirs - config.max_scene_loss,
        student.scene_accuracy, teacher.scene_accuracy,
        f"scene accuracy {{:.3f}} is more than {config.max_scene_loss:g} below the teacher's {{:.3f}}",
    )  # fmt: skip
    yield from _unless(
        lambda ours, theirs: ours >= config.min_speedup * theirs,
        _fastest(student.images_per_second), teacher.images_per_second,
        f"{{:.3g}} pictures a second are fewer than {config.min_speedup:g} times the teacher's {{:.3g}}",
    )  # fmt: skip


def _detail_within(detail: Figure | None, config: DecoderGateConfig) -> Iterator[str]:
    if detail and not config.min_detail_ratio <= detail.value <= config.max_detail_ratio:
        yield f"detail ratio {detail.value:.3f} is not in {config.min_detail_ratio:g} to {config.max_detail_ratio:g}"


def _against_undistilled(student: DecoderFigures, undistilled: DecoderFigures) -> Iterator[str]:
    whose = "of the undistilled teacher in two steps"
    yield from _unless(
        lambda ours, theirs: ours < theirs, student.fid, undistilled.fid, f"FID {{:.3g}} is not below {{:.3g}} {whose}"
    )
    yield from _nearer_detail(student, undistilled, whose)


def _against_vae(student: DecoderFigures, vae: DecoderFigures, config: DecoderGateConfig) -> Iterator[str]:
    whose = "of the VAE's decoder"
    if config.must_beat_vae:
        yield from _unless(
            lambda ours, theirs: ours <= theirs, student.fid, vae.fid, f"FID {{:.3g}} is above {{:.3g}} {whose}"
        )
        yield from _nearer_detail(student, vae, whose)
    yield from _unless(
        lambda ours, theirs: ours >= theirs - config.max_scene_loss_to_vae,
        student.scene_accuracy, vae.scene_accuracy,
        f"scene accuracy {{:.3f}} is more than {config.max_scene_loss_to_vae:g} below {{:.3f}} {whose}",
    )  # fmt: skip


def _nearer_detail(student: DecoderFigures, other: DecoderFigures, whose: str) -> Iterator[str]:
    yield from _unless(
        lambda ours, theirs: abs(ours - 1) < abs(theirs - 1),
        student.detail_ratio, other.detail_ratio,
        f"detail ratio {{:.3f}} is no nearer to 1 than {{:.3f}} {whose}",
    )  # fmt: skip


def _fastest(rate: Figure | None) -> Figure | None:
    """The fastest of the timed calls: other work on the machine can only make a call slower."""
    return Figure(rate.ci95[1], None, rate.num_samples) if rate and rate.ci95 else rate


def _unless(
    holds: Callable[[float, float], bool], ours: Figure | None, theirs: Figure | None, words: str
) -> Iterator[str]:
    """The words, with both values, where both were measured and the comparison fails."""
    if ours and theirs and not holds(ours.value, theirs.value):
        yield words.format(ours.value, theirs.value)
