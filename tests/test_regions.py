"""Errors count the pixels of the region that was asked for: against plain loops, by properties, and by the command."""

import csv
import json

import numpy as np
import pytest
import torch
from mattes import soft_disc
from reference import metrics as plain
from stand_in import StandIn

from dptmat import metrics
from dptmat.data.cases import pair
from dptmat.data.image_io import LEVELS, write_png
from dptmat.data.regions import mark_region
from dptmat.data.trimaps import transition
from dptmat.defaults import ERRORS, REGIONS
from dptmat.tasks.evaluate import evaluate, evaluate_files, table

SHAPES = {"a": (22, 31), "b": (40, 33), "c": (1, 45)}


def blobs(shape, seed):
    """An alpha of opaque, empty and half-transparent rectangles."""
    random = np.random.default_rng(seed)
    alpha = np.zeros(shape, np.uint8)
    for value in (255, 255, 120):
        top, left = (random.integers(0, side) for side in shape)
        alpha[top : top + random.integers(1, 40), left : left + random.integers(1, 40)] = value
    return alpha


@pytest.fixture
def sample_set(tmp_path):
    """Folder with image, trimap, alpha and prediction of three names; the predictions err everywhere."""
    random = np.random.default_rng(0)
    for folder in ("image", "trimap", "alpha", "prediction"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for seed, (name, shape) in enumerate(SHAPES.items()):
        alpha = blobs(shape, seed)
        for folder, content in (
            ("alpha", alpha),
            ("trimap", random.choice(LEVELS, shape)),
            ("prediction", random.integers(0, 256, shape, np.uint8)),
            ("image", random.integers(0, 256, (*shape, 3), np.uint8)),
        ):
            write_png(tmp_path / "set" / folder / f"{name}.png", content)
    return tmp_path / "set"


def cases_of(folder, *keys):
    return pair(**{key: folder / key for key in keys})


def layers_of(folder, name):
    from dptmat.data.image_io import read_alpha, read_trimap

    trimap = LEVELS[read_trimap(folder / f"trimap/{name}.png")]
    return trimap, *(read_alpha(folder / kind / f"{name}.png") for kind in ("alpha", "prediction"))


def counted_plainly(region, alpha, trimap):
    """What counts, by the plain loops; None of a trimap stands for none given."""
    if region == "whole":
        return plain.whole(alpha)
    return plain.transition(alpha) if region == "transition" and trimap is None else trimap


@pytest.mark.parametrize(("shape", "seed"), [((1, 1), 0), ((1, 60), 1), ((45, 1), 2), ((40, 47), 3), ((26, 26), 4)])
def test_the_transition_region_is_what_an_ellipse_of_25_pixels_reaches(shape, seed):
    alpha = blobs(shape, seed)
    np.testing.assert_array_equal(LEVELS[transition(alpha)], plain.transition(alpha))


def test_the_transition_region_reaches_12_pixels_to_each_side_of_an_edge():
    alpha = np.zeros((60, 100), np.uint8)
    alpha[:, 50:] = 255
    assert np.flatnonzero(transition(alpha)[30] == 1).tolist() == list(range(38, 62))
    for value, state in ((0, 0), (255, 2), (1, 1), (254, 1)):
        assert (transition(np.full((30, 30), value, np.uint8)) == state).all()


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("has_trimap", [True, False])
def test_every_error_counts_the_region(sample_set, region, has_trimap):
    if region == "unknown" and not has_trimap:
        pytest.skip("it is the trimap's")
    keys = ("alpha", "prediction", *(["trimap"] if has_trimap else []))
    result = evaluate_files(cases_of(sample_set, *keys), region=region)
    assert (result.region, len(result.images)) == (region, 3)
    for score in result.images:
        trimap, alpha, prediction = layers_of(sample_set, score.name)
        counted = counted_plainly(region, alpha, trimap if has_trimap else None)
        assert score.region_pixels == (counted == 128).sum()
        assert score.unknown_pixels == ((trimap == 128).sum() if has_trimap else None)
        for error in ERRORS:
            expected = getattr(plain, error)(prediction, alpha, counted)
            # Conn is in single precision in the plain loops: 6e-8 a pixel.
            assert getattr(score, error) == pytest.approx(expected, rel=1e-9, abs=1e-7), error
        assert score.mad == pytest.approx(1000 * score.sad / score.region_pixels, rel=1e-12)


def test_the_transition_region_is_not_that_of_trimaps_that_are_made(sample_set):
    for trimap in ("all-unknown", "from-alpha"):
        result = evaluate_files(cases_of(sample_set, "alpha", "prediction"), trimap=trimap, region="transition")
        for score in result.images:
            _, alpha, prediction = layers_of(sample_set, score.name)
            assert score.sad == metrics.sad(prediction, alpha, plain.transition(alpha))
        assert result.region_from == "alpha, by an ellipse of 25 pixels"


def test_the_known_parts_of_an_image_add_up_with_the_unknown_to_the_whole(sample_set):
    trimap, alpha, prediction = layers_of(sample_set, "b")
    parts = [
        metrics.sad(prediction, alpha, np.where(trimap == level, 128, 0).astype(np.uint8)) for level in (0, 128, 255)
    ]
    whole = mark_region("whole", alpha, None, made=False)
    assert metrics.sad(prediction, alpha, whole) == pytest.approx(sum(parts), rel=1e-12)


def test_the_official_way_to_the_transition_region_gives_the_same():
    """AIM-500's code sets the prediction to 0 and 1 where the trimap is known, and sums over the whole image."""
    alpha, random = soft_disc(90, 110), np.random.default_rng(1)
    prediction = random.integers(0, 256, alpha.shape, np.uint8)
    counted = mark_region("transition", alpha, None, made=False)
    p = np.where(counted == 128, prediction / 255, counted / 255)
    difference = np.abs(p - alpha / 255)
    assert metrics.sad(prediction, alpha, counted) == pytest.approx(difference.sum() / 1000, rel=1e-12)
    assert metrics.mad(prediction, alpha, counted) == pytest.approx(difference.sum() / (counted == 128).sum())
    assert metrics.mse(prediction, alpha, counted) == pytest.approx((difference**2).sum() / (counted == 128).sum())


def test_unknown_is_the_default_and_of_the_same_bits(sample_set):
    cases = cases_of(sample_set, "alpha", "prediction", "trimap")
    assert evaluate_files(cases) == evaluate_files(cases, region="unknown")
    for score in evaluate_files(cases).images:
        trimap, alpha, prediction = layers_of(sample_set, score.name)
        assert score.sad == metrics.sad(prediction, alpha, trimap)
        assert score.conn == metrics.conn(prediction, alpha, trimap)


@pytest.mark.parametrize(
    ("options", "region_from", "head"),
    [
        ({}, "trimap", "errors in the unknown region of the trimap; known regions from trimap"),
        ({"region": "whole"}, "every pixel", "errors in the whole image; known regions from trimap"),
        (
            {"region": "transition"}, "trimap",
            "errors in the transition region (from trimap); known regions from trimap",
        ),
        ({"trimap": "all-unknown"}, "trimap", "errors in the whole image, all unknown; known regions as predicted"),
        (
            {"region": "transition", "trimap": "all-unknown", "tta": True}, "alpha, by an ellipse of 25 pixels",
            "errors in the transition region (from alpha, by an ellipse of 25 pixels); known regions as predicted, "
            "mean over eight orientations",
        ),
    ],
)  # fmt: skip
def test_region_and_rule_stand_beside_the_numbers(sample_set, tmp_path, options, region_from, head):
    result = evaluate(cases_of(sample_set, "image", "trimap", "alpha"), StandIn(), out=tmp_path / "out", **options)
    content = json.loads((tmp_path / "out/scores.json").read_text())
    about = {key: content[key] for key in ("region", "region_from", "tta")}
    expected = {"region": "unknown", "tta": False} | {k: v for k, v in options.items() if k != "trimap"}
    assert about == expected | {"region_from": region_from}
    assert table(result).splitlines()[0] == head
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").open(newline="")))
    assert {(row["region"], row["known_regions"]) for row in rows} == {(result.region, result.known_regions)}
    assert [float(row["mad"]) for row in rows[:3]] == [score.mad for score in result.images]


def test_an_alpha_without_a_transition_is_named_and_not_in_the_mean(sample_set, caplog):
    write_png(sample_set / "alpha/b.png", np.zeros(SHAPES["b"], np.uint8))
    result = evaluate_files(cases_of(sample_set, "alpha", "prediction"), region="transition")
    assert [record.getMessage() for record in caplog.records] == [
        "b: its alpha has no transition; MSE is undefined, the mean is without it"
    ]
    assert np.isnan(result.images[1].mad)
    assert result.mean["mad"] == pytest.approx((result.images[0].mad + result.images[2].mad) / 2)
    assert "mean of 2" in table(result)


def test_wrong_regions_are_refused(sample_set):
    for call in (
        lambda: evaluate_files(cases_of(sample_set, "alpha", "prediction"), region="all"),
        lambda: evaluate(cases_of(sample_set, "alpha", "image"), StandIn(), region="", trimap="all-unknown"),
    ):
        with pytest.raises(ValueError, match="`region` must be unknown, whole, transition, got "):
            call()
    with pytest.raises(ValueError, match="lacks trimap"):
        evaluate_files(cases_of(sample_set, "alpha", "prediction"))


# ---- the command


def test_a_region_that_needs_no_trimap_is_scored_without(sample_set, dptmat):
    words = ["evaluate", "--predictions", sample_set / "prediction", "--alpha", sample_set / "alpha"]
    for region in ("whole", "transition"):
        status, printed, _ = dptmat(*words, "--region", region)
        assert status == 0
        expected = evaluate_files(cases_of(sample_set, "alpha", "prediction"), region=region)
        assert printed == table(expected) + "\n"
    status, printed, told = dptmat(*words)
    assert (status, printed) == (2, "")
    assert told == (
        "dptmat: --trimap is missing; give a folder, or all-unknown or from-alpha if there are none; or score the "
        "whole image by --region whole\n"
    )


def test_regions_and_turns_that_do_not_fit_give_one_line(sample_set, dptmat):
    words = ["evaluate", "--predictions", sample_set / "prediction", "--data", sample_set]
    for more, message in (
        (["--region", "all"], "'all' is not one of 'unknown', 'whole', 'transition'"),
        (["--tta"], "--tta turns what a network sees, but --predictions are scored as they are; leave it out"),
    ):
        status, printed, told = dptmat(*words, *more)
        assert (status, printed) == (2, "")
        assert message in told
        assert len([line for line in told.splitlines() if line.strip()]) == 1


def test_the_best_network_of_another_region_is_not_compared(tmp_path, caplog):
    from dptmat.tasks.finetune import _sad_of

    path = tmp_path / "best.pt"
    for given, now, sad in (
        ("trimaps", "files", 3.0), ("other", "files", 3.0), ("all-unknown", "all-unknown", 3.0),
        ("all-unknown", "files", np.inf), ("trimaps", "from-alpha", np.inf),
    ):  # fmt: skip
        caplog.clear()
        torch.save({"model": {}, "config": {"val_trimap": given}, "scores": {"sad": 3.0}}, path)
        assert _sad_of(path, now) == sad
        assert len(caplog.records) == (sad == np.inf)
    assert "its SAD is not compared" in caplog.text
