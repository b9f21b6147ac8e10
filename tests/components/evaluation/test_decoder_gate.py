import pytest

from components.evaluation.decoder_gate import DecoderGateConfig, shortcomings
from components.evaluation.figures import DecoderFigures
from components.evaluation.intervals import Figure

FIELDS = ("fid", "detail_ratio", "scene_accuracy", "images_per_second", "psnr")
GOOD = {
    "vae": (2.4, 0.77, 0.995, 900.0, 36.0),
    "teacher": (0.5, 1.02, 0.996, 20.0, 35.0),
    "teacher_2": (0.4, 0.95, 0.998, 240.0, 39.5),
    "consistency": (0.3, 0.98, 0.994, 240.0, 20.0),
}
STEPS = {"vae": 1, "teacher": 25, "teacher_2": 2, "consistency": 2}


def decoders(**student: float) -> dict[str, DecoderFigures]:
    """Four decoders whose student passes, with some of its figures replaced."""
    values = {name: dict(zip(FIELDS, row, strict=True)) for name, row in GOOD.items()}
    values["consistency"] |= student
    return {
        name: DecoderFigures(
            num_inference_steps=STEPS[name], **{field: Figure(value, None, 500) for field, value in row.items()}
        )
        for name, row in values.items()
    }


def test_a_good_student_passes_however_low_its_psnr_is() -> None:
    assert shortcomings(decoders(), DecoderGateConfig()) == ()


@pytest.mark.parametrize(
    ("figure", "value", "words"),
    [
        ("fid", 0.45, ["FID 0.45 is not below 0.4 of the undistilled teacher in two steps"]),
        (
            "fid",
            3.0,
            [
                "FID 3 is above 1.1 times the teacher's 0.5 in 25 steps",
                "FID 3 is not below 0.4 of the undistilled teacher in two steps",
                "FID 3 is above 2.4 of the VAE's decoder",
            ],
        ),
        ("detail_ratio", 1.06, ["detail ratio 1.060 is no nearer to 1 than 0.950 of the undistilled teacher"]),
        (
            "detail_ratio",
            0.7,
            ["detail ratio 0.700 is not in 0.8 to 1.25", "no nearer to 1 than 0.950", "no nearer to 1 than 0.770"],
        ),
        ("scene_accuracy", 0.98, ["scene accuracy 0.980 is more than 0.01 below 0.995 of the VAE's decoder"]),
        ("scene_accuracy", 0.97, ["more than 0.02 below the teacher's 0.996", "more than 0.01 below 0.995"]),
        ("images_per_second", 199.0, ["199 pictures a second are fewer than 10 times the teacher's 20"]),
    ],
)
def test_a_failing_student_is_told_by_which_figure(figure: str, value: float, words: list[str]) -> None:
    said = shortcomings(decoders(**{figure: value}), DecoderGateConfig())
    assert len(said) == len(words)
    for sentence, expected in zip(said, words, strict=True):
        assert expected in sentence


def test_a_busy_machine_fails_no_student() -> None:
    slowed = decoders()
    for bounds, said in (((20.0, 210.0), 0), ((20.0, 190.0), 1)):
        rate = Figure(60.0, bounds, 384)
        slowed["consistency"] = slowed["consistency"].model_copy(update={"images_per_second": rate})
        assert len(shortcomings(slowed, DecoderGateConfig())) == said


def test_thresholds_are_those_of_the_recipe() -> None:
    failing = decoders(fid=0.45, detail_ratio=1.3)
    assert len(shortcomings(failing, DecoderGateConfig())) == 4
    lenient = DecoderGateConfig(max_detail_ratio=2, must_beat_undistilled=False, must_beat_vae=False)
    assert shortcomings(failing, lenient) == ()


def test_figures_that_were_not_measured_are_not_asked_for() -> None:
    unread = {name: one.model_copy(update={"scene_accuracy": None}) for name, one in decoders().items()}
    assert shortcomings(unread, DecoderGateConfig()) == ()
