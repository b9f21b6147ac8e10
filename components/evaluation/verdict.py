"""The report in a few plain sentences, computed from its figures and nothing else.

What belongs here: which figures are compared, and in which words. What does not: the figures.
"""

from collections.abc import Iterator, Sequence

from . import blend_study
from .blend_study import MAIN, ORACLE, RAW, UPSAMPLED, rows_of
from .figures import CaptionFigures, DecoderFigures, GenerationFigures, Report
from .wording import compared, percent

TRUSTWORTHY = 0.9  # a judge below it makes more mistakes than the differences that are reported


def verdict(report: Report) -> tuple[str, ...]:
    """Sentences on captions, prompt following, blends, decoder and judge; those without figures are left out."""
    return (
        *_on_captions(report.captions),
        *_on_generation(report.generation),
        *_on_upsampling(report.generation),
        *blend_study.sentences(report),
        *_on_decoder(report.decoder),
        *_on_gate(report),
        *_on_judge(report),
    )


def main_model(generation: Sequence[GenerationFigures]) -> str:
    """The arm that the verdict speaks of: dsc-95, else the first that is neither raw nor the oracle, else the first."""
    models = list(dict.fromkeys(one.model for one in generation))
    others = [model for model in models if model not in (RAW, ORACLE)]
    if MAIN in models:
        return MAIN
    return next(iter([*others, *models]), MAIN)


def _on_captions(captions: dict[str, CaptionFigures]) -> Iterator[str]:
    raw = captions.get(RAW)
    for kind in ("dsc", "ssc"):
        ours = captions.get(kind)
        if ours is None:
            continue
        if ours.attribute_accuracy and ours.hallucination_rate:
            subject = "of a picture's attributes" if kind == "dsc" else "of the main subject's attributes"
            sentence = f"{kind.upper()} captions state {percent(ours.attribute_accuracy)} {subject} rightly"
            if kind == "dsc" and raw and raw.attribute_accuracy:
                sentence += f", against {percent(raw.attribute_accuracy)} in the raw captions"
            sentence += f"; {percent(ours.hallucination_rate)} of what they state is wrong"
            if kind == "dsc" and raw and raw.hallucination_rate:
                sentence += f" (raw: {percent(raw.hallucination_rate)})"
            yield sentence + "."
        elif ours.mean_words:
            sentence = f"{kind.upper()} captions have {ours.mean_words.value:.1f} words on average"
            if raw and raw.mean_words:
                sentence += f" (raw: {raw.mean_words.value:.1f})"
            if ours.clip_score and raw and raw.clip_score:
                sentence += (
                    f"; their CLIP score is {ours.clip_score.value:.1f} against {raw.clip_score.value:.1f}"
                    f" ({compared(ours.clip_score, raw.clip_score)})"
                )
            yield sentence + "."


def _on_generation(generation: Sequence[GenerationFigures]) -> Iterator[str]:
    main = main_model(generation)
    for kind, arms in rows_of(generation).items():
        if main in arms and not arms[main].upsampled:
            yield from _on_model(kind, main, arms[main], arms.get(RAW) if main != RAW else None)


def _on_model(prompts: str, model: str, ours: GenerationFigures, raw: GenerationFigures | None) -> Iterator[str]:
    if ours.object_accuracy and ours.scene_accuracy:
        sentence = (
            f"On {prompts} prompts, {_with_seeds(model, ours)} draws {percent(ours.object_accuracy)} of the stated "
            f"objects rightly and {percent(ours.scene_accuracy)} of the pictures hold every stated fact"
        )
        if raw and raw.object_accuracy and raw.scene_accuracy:
            sentence += (
                f"; {_with_seeds('the model trained on raw captions', raw)} draws {percent(raw.object_accuracy)} and "
                f"{percent(raw.scene_accuracy)} "
                f"(objects: {model} {compared(ours.object_accuracy, raw.object_accuracy)})"
            )
        yield sentence + "."
    elif ours.clip_score:
        sentence = f"On {prompts} prompts, the CLIP score of {model} is {ours.clip_score.value:.1f}"
        if ours.retrieval_at_1:
            sentence += f" and {percent(ours.retrieval_at_1)} of its pictures are nearest to their own prompt"
        if raw and raw.clip_score:
            sentence += (
                f"; the model trained on raw captions has {raw.clip_score.value:.1f} "
                f"({model} {compared(ours.clip_score, raw.clip_score)})"
            )
        yield sentence + "."


def _with_seeds(model: str, figures: GenerationFigures) -> str:
    return model if figures.num_seeds == 1 else f"{model} ({figures.num_seeds} seeds)"


def _on_upsampling(generation: Sequence[GenerationFigures]) -> Iterator[str]:
    main, rows = main_model(generation), rows_of(generation)
    for kind, arms in rows.items():
        ours, plain = arms.get(main), rows.get(kind.removesuffix(UPSAMPLED), {}).get(main)
        if ours is None or plain is None or ours is plain:
            continue
        for name, words in (("object_accuracy", "objects drawn rightly"), ("clip_score", "CLIP score")):
            after, before = getattr(ours, name), getattr(plain, name)
            if after and before:
                shown = [percent(one) if name == "object_accuracy" else f"{one.value:.1f}" for one in (before, after)]
                yield (
                    f"Rewriting {ours.prompts} prompts with the upsampler moves {ours.model}'s {words} from {shown[0]} "
                    f"to {shown[1]} ({compared(after, before)})."
                )
                break


def _on_decoder(decoder: dict[str, DecoderFigures]) -> Iterator[str]:
    ours, vae = decoder.get("consistency"), decoder.get("vae")
    if ours is None or vae is None or not (ours.detail_ratio and vae.detail_ratio):
        return
    sentence = (
        f"The consistency decoder, in {ours.num_inference_steps} steps, draws {percent(ours.detail_ratio)} of the "
        f"originals' fine detail (VAE: {percent(vae.detail_ratio)})"
    )
    if ours.fid and vae.fid:
        sentence += f" at FID {ours.fid.value:.3g} (VAE: {vae.fid.value:.3g})"
    if ours.psnr and vae.psnr:
        sentence += f" and {ours.psnr.value:.1f} dB (VAE: {vae.psnr.value:.1f} dB)"
    if ours.images_per_second:
        sentence += f", {ours.images_per_second.value:,.0f} pictures a second"
    yield sentence + "."
    undistilled = decoder.get("teacher_2")
    if undistilled and undistilled.detail_ratio and undistilled.fid:
        yield (
            f"Its teacher, undistilled in as many steps, draws {percent(undistilled.detail_ratio)} of the fine detail "
            f"at FID {undistilled.fid.value:.3g}."
        )


def _on_gate(report: Report) -> Iterator[str]:
    if report.decoder_shortcomings:
        yield f"The consistency decoder stays a candidate: {'; '.join(report.decoder_shortcomings)}."


def _on_judge(report: Report) -> Iterator[str]:
    if report.judge and report.judge.scene_accuracy:
        figure = report.judge.scene_accuracy
        sentence = (
            f"The judge behind these figures reads {percent(figure)} of {figure.num_samples:,} held-out real pictures "
            "without a mistake"
        )
        if figure.value < TRUSTWORTHY:
            sentence += ": too few, so figures on objects and scenes say little; train it longer"
        yield sentence + "."
    if (agreement := report.judges_agree.get("descriptive")) and agreement.scene_accuracy:
        yield (
            f"A second judge, trained apart, reads {percent(agreement.scene_accuracy)} of the "
            f"{agreement.scene_accuracy.num_samples:,} pictures of descriptive prompts exactly as the first does."
        )
