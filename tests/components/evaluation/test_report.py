import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from components.evaluation.figures import (
    CaptionFigures,
    DecoderFigures,
    GeneratedDecoderFigures,
    GenerationFigures,
    JudgeFigures,
    ModelRecord,
    Report,
    SuiteFigures,
)
from components.evaluation.intervals import Figure
from components.evaluation.report import CaptionExample, Examples, Gallery, duration, render_html
from components.evaluation.verdict import verdict
from components.evaluation.wording import compared

EVIL = "</td><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)> \"quoted\" & 'single'"


def figure(value: float, half: float = 0.02) -> Figure:
    return Figure(value, (value - half, value + half), 300)


def generated(model: str, prompts: str, objects: float, **changes) -> GenerationFigures:
    values = {
        "model": model,
        "prompts": prompts,
        "upsampled": False,
        "decoder": "vae",
        "num_prompts": 300,
        "scene_accuracy": figure(objects / 2),
        "object_accuracy": figure(objects),
        "clip_score": figure(100 * objects, 1),
    }
    return GenerationFigures(**{**values, **changes})


REPORT = Report(
    dataset="scenes",
    recipe="tiny",
    atelier_version="0.1.0",
    git_commit="0123456789abcdef",
    seed=7,
    seconds={"vae": 240.0, "latent_diffusion": 302.5},
    peak_memory_gib={"vae": 1.25},
    feature_extractor="attribute_judge",
    judge=JudgeFigures(scene_accuracy=figure(0.997, 0.001)),
    captions={
        "raw": CaptionFigures(
            attribute_accuracy=figure(0.27), hallucination_rate=figure(0.057), mean_words=figure(6.7)
        ),
        "dsc": CaptionFigures(
            attribute_accuracy=figure(0.991), hallucination_rate=figure(0.002), mean_words=figure(14)
        ),
    },
    generation=(
        generated("raw", "short", 0.12),
        generated("dsc-95", "short", 0.7),
        generated("dsc-95", "short", 0.71, upsampled=True),
        generated("raw", "descriptive", 0.1),
        generated("dsc-95", "descriptive", 0.8),
        generated("dsc-95", "descriptive", 0.79, decoder="consistency"),
    ),
    decoder={
        "vae": DecoderFigures(num_inference_steps=1, psnr=figure(33.7), detail_ratio=figure(0.7)),
        "consistency": DecoderFigures(
            num_inference_steps=2,
            psnr=figure(30.9),
            detail_ratio=figure(0.97),
            images_per_second=figure(403, 10),
            generated=GeneratedDecoderFigures(fid=figure(1.2)),
        ),
    },
    models={"vae": ModelRecord(registry="scenes-tiny-vae/1", uri="/lake/models/vae/ab", parents=("image_set=71",))},
)


def pictures(number: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (number, 32, 32, 3)).astype(np.uint8)


EXAMPLES = Examples(
    captions=[CaptionExample(pictures(1)[0], {"raw": EVIL, "ssc": "small red star", "dsc": EVIL})],
    generation=[Gallery(EVIL, [EVIL, "a star"], {"raw, vae": pictures(2), EVIL: pictures(2)})],
    decoder=Gallery("Held-out pictures", ["one"], {"original": pictures(1), "vae": pictures(1)}),
    plots={"losses": Image.new("RGB", (40, 20))},
)


class Page(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_json_has_the_fields_of_the_design_and_every_figure_its_samples() -> None:
    content = json.loads(REPORT.to_json())
    assert {"dataset", "recipe", "atelier_version", "git_commit", "seed", "seconds", "peak_memory_gib"} <= set(content)
    assert {"judge", "captions", "generation", "decoder", "models"} <= set(content)
    assert content["captions"]["dsc"]["attribute_accuracy"] == {
        "value": 0.991,
        "ci95": [0.971, 1.011],
        "num_samples": 300,
    }
    assert content["generation"][2]["upsampled"] is True
    assert content["decoder"]["consistency"]["generated"]["fid"]["value"] == 1.2
    assert content["models"]["vae"] == {
        "registry": "scenes-tiny-vae/1",
        "uri": "/lake/models/vae/ab",
        "parents": ["image_set=71"],
    }


def test_a_written_report_reads_back_as_the_same_report() -> None:
    assert Report.model_validate_json(REPORT.to_json()) == REPORT


def test_what_was_not_measured_is_absent_from_the_json() -> None:
    text = REPORT.to_json()
    assert "null" not in text
    assert "exact_match" not in text
    bare = json.loads(Report(dataset="emoji", recipe="tiny", atelier_version="0.1.0", seed=0).to_json())
    assert "judge" not in bare
    assert "git_commit" not in bare
    assert bare["generation"] == []


def test_a_number_that_is_not_finite_never_reaches_the_file() -> None:
    broken = REPORT.model_copy(update={"judge": JudgeFigures(scene_accuracy=Figure(float("nan"), None, 3))})
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.to_json()


def test_every_figure_has_a_flat_name_for_the_tracker() -> None:
    metrics = REPORT.metrics()
    assert metrics["judge/scene_accuracy"] == 0.997
    assert metrics["captions/dsc/attribute_accuracy"] == 0.991
    assert metrics["generation/dsc-95/short_upsampled/vae/object_accuracy"] == 0.71
    assert metrics["generation/dsc-95/descriptive/consistency/object_accuracy"] == 0.79
    assert metrics["decoder/consistency/generated/fid"] == 1.2


def test_the_page_stands_alone_and_every_caption_is_escaped() -> None:
    html = render_html(REPORT.model_copy(update={"verdict": (EVIL, *verdict(REPORT))}), EXAMPLES)
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "base"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "img":
            assert (attributes["src"] or "").startswith("data:image/png;base64,")
        if tag == "a":
            assert (attributes["href"] or "").startswith("#")
    assert not re.search(r"url\(|@import", html)
    assert page.text.count(EVIL) == 7  # verdict, two captions, gallery title, prompt, and its two picture labels
    assert html == render_html(REPORT.model_copy(update={"verdict": (EVIL, *verdict(REPORT))}), EXAMPLES)


def test_the_page_shows_every_section_and_every_model() -> None:
    page = Page(render_html(REPORT, EXAMPLES))
    sections = {attributes["id"] for tag, attributes in page.tags if tag == "section"}
    assert sections == {"captions", "generation", "decoder", "judge", "plots", "models", "timings"}
    anchors = {(attributes["href"] or "")[1:] for tag, attributes in page.tags if tag == "a"}
    assert anchors == sections
    for words in ("dsc-95, consistency", "Short prompts, upsampled (300)", "99.1 %", "97.1–101.1", "scenes-tiny-vae/1"):
        assert words in page.text
    assert "9 min 02 s" in page.text
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1 + 4 + 2 + 1


def test_a_page_without_truth_or_pictures_has_no_empty_sections() -> None:
    report = Report(
        dataset="emoji",
        recipe="tiny",
        atelier_version="0.1.0",
        seed=0,
        generation=(generated("dsc-95", "short", 0.3, scene_accuracy=None, object_accuracy=None),),
    )
    page = Page(render_html(report))
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == ["generation"]
    assert "CLIP score" in page.text
    assert "whole scene" not in page.text


def test_a_gallery_refuses_pictures_without_texts() -> None:
    with pytest.raises(ValueError, match="gallery 'x': 2 pictures of 'vae' for 1 texts"):
        Gallery("x", ["one"], {"vae": pictures(2)})


def test_the_verdict_says_what_the_figures_say() -> None:
    sentences = verdict(REPORT)
    assert sentences[0].startswith(
        "DSC captions state 99.1 % of a picture's attributes rightly, against 27.0 % in the raw captions; 0.2 %"
    )
    descriptive = next(sentence for sentence in sentences if "descriptive prompts" in sentence)
    assert "draws 80.0 % of the stated objects rightly and 40.0 %" in descriptive
    assert "raw captions draws 10.0 % and 5.0 % (objects: dsc-95 clearly above)" in descriptive
    assert any("from 70.0 % to 71.0 % (not clearly different)" in sentence for sentence in sentences)
    assert any("in 2 steps, draws 97.0 %" in sentence and "403 pictures a second" in sentence for sentence in sentences)
    assert (
        sentences[-1] == "The judge behind these figures reads 99.7 % of 300 held-out real pictures without a mistake."
    )


def test_without_truth_the_verdict_speaks_of_clip_scores() -> None:
    report = Report(
        dataset="emoji",
        recipe="tiny",
        atelier_version="0.1.0",
        seed=0,
        captions={
            "raw": CaptionFigures(mean_words=figure(3), clip_score=figure(25)),
            "dsc": CaptionFigures(mean_words=figure(12), clip_score=figure(31)),
        },
        generation=(
            generated("raw", "short", 0.3, scene_accuracy=None, object_accuracy=None),
            generated("ssc-95", "short", 0.2, scene_accuracy=None, object_accuracy=None, retrieval_at_1=figure(0.4)),
        ),
    )
    assert verdict(report) == (
        "DSC captions have 12.0 words on average (raw: 3.0); their CLIP score is 31.0 against 25.0 (clearly above).",
        "On short prompts, the CLIP score of ssc-95 is 20.0 and 40.0 % of its pictures are nearest to their own prompt"
        "; the model trained on raw captions has 30.0 (ssc-95 clearly below).",
    )


def test_a_judge_that_cannot_read_is_not_to_be_trusted() -> None:
    report = REPORT.model_copy(update={"judge": JudgeFigures(scene_accuracy=figure(0.6))})
    assert verdict(report)[-1].endswith("say little; train it longer.")
    assert "say little" not in verdict(REPORT)[-1]


def test_a_student_that_failed_its_gate_is_said_to_be_a_candidate() -> None:
    undistilled = DecoderFigures(num_inference_steps=2, fid=figure(0.3), detail_ratio=figure(0.958))
    report = REPORT.model_copy(
        update={
            "decoder": {**REPORT.decoder, "teacher_2": undistilled},
            "decoder_shortcomings": ("FID 0.5 is too high", "detail ratio 0.7 is too low"),
        }
    )
    said = verdict(report)
    assert "Its teacher, undistilled in as many steps, draws 95.8 % of the fine detail at FID 0.3." in said
    assert "The consistency decoder stays a candidate: FID 0.5 is too high; detail ratio 0.7 is too low." in said
    assert not any("stays a candidate" in sentence for sentence in verdict(REPORT))


def test_nothing_measured_gives_no_verdict() -> None:
    assert verdict(Report(dataset="emoji", recipe="tiny", atelier_version="0.1.0", seed=0)) == ()


def test_figures_differ_where_their_intervals_are_apart() -> None:
    assert compared(figure(0.5), figure(0.4)) == "clearly above"
    assert compared(figure(0.4), figure(0.5)) == "clearly below"
    assert compared(figure(0.5), figure(0.47)) == "not clearly different"
    assert compared(figure(0.5), Figure(0.1, None, 1)) == "not comparable (no interval)"


def test_durations_read_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0.42, 42, 200, 7500)] == ["0.4 s", "42 s", "3 min 20 s", "2 h 05 min"]


def test_judges_and_suites_have_their_tables() -> None:
    report = REPORT.model_copy(
        update={
            "second_judge": JudgeFigures(scene_accuracy=figure(0.99, 0.001)),
            "judges_agree": {"short_upsampled": JudgeFigures(scene_accuracy=figure(0.873))},
            "suites": (SuiteFigures(suite="geneval", category="counting", num_prompts=80, clip_score=figure(31.4, 1)),),
        }
    )
    gallery = Gallery("Generated pictures that the two judges read differently (1)", [EVIL], {"generated": pictures(1)})
    page = render_html(report, Examples(disagreements=gallery))
    for words in (
        "second judge, real pictures",
        "both agree, short upsampled prompts",
        "87.3 %",
        "geneval: counting (80)",
    ):
        assert words in page
    assert "<script>alert" not in page
    assert "judges_agree/short_upsampled/scene_accuracy" in report.metrics()
    assert "suites/geneval/counting/clip_score" in report.metrics()
