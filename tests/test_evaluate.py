"""Test sets are scored as published: what the network sees, what is written, what is left out, and the command."""

import csv
import json
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from stand_in import StandIn

from dptmat import create_model, metrics
from dptmat.data.cases import pair
from dptmat.data.image_io import LEVELS
from dptmat.data.trimaps import from_alpha
from dptmat.errors import UserError
from dptmat.inference import predict_alpha
from dptmat.models.mgmatting import MGMatting
from dptmat.tasks import evaluate
from dptmat.tasks.score import Score, map_ahead

METRICS = ("sad", "mse", "grad", "conn", "mad")
SIZES = {"a": (40, 50), "b": (33, 64), "c": (48, 31)}


@pytest.fixture
def sample_set(tmp_path):
    """Folder with image, trimap and alpha of three names, laid out as alphamatting.com is here."""
    random = np.random.default_rng(0)
    for folder in ("image", "trimap", "alpha"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for name, (height, width) in SIZES.items():
        alpha = cv2.resize(random.integers(0, 256, (4, 4), np.uint8), (width, height))
        alpha[:, :9], alpha[:, -9:] = 0, 255
        trimap = np.full_like(alpha, 128)
        trimap[:, :9], trimap[:, -9:] = 0, 255
        noise = random.integers(0, 256, (height, width, 3), np.uint8)
        for folder, content in (("image", noise), ("trimap", trimap), ("alpha", alpha)):
            write(tmp_path / "set" / folder / f"{name}.png", content)
    return tmp_path / "set"


def write(path, content):
    assert cv2.imwrite(str(path), content)


def grey(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def colours(path):
    return cv2.imread(str(path))[:, :, ::-1]


def cases_of(folder, *keys):
    return pair(**{key: folder / key for key in keys})


def plain_scores(prediction, alpha, trimap):
    return {name: getattr(metrics, name)(prediction, alpha, trimap) for name in METRICS}


def scores_of(score):
    return {name: getattr(score, name) for name in METRICS}


@pytest.fixture
def run(caplog):
    """Function that evaluates a network's alphas or files: the evaluation and the lines that were logged."""

    def run(cases, network=None, **options):
        caplog.clear()
        if network is None:
            evaluation = evaluate.evaluate_files(cases, **options)
        else:
            evaluation = evaluate.evaluate(cases, network, **options)
        return evaluation, [record.getMessage() for record in caplog.records]

    return run


# ---- a network


def test_a_network_is_scored_and_its_alphas_are_written(run, sample_set, tmp_path):
    network = StandIn()
    done = []
    result, lines = run(
        cases_of(sample_set, "image", "trimap", "alpha"), network,
        out=tmp_path / "out", checkpoint=tmp_path / "net.pt", progress=lambda: done.append(1),
    )  # fmt: skip
    assert (lines, len(done)) == ([], 3)
    assert [score.name for score in result.images] == ["a", "b", "c"]
    assert [list(x.shape[2:]) for x in network.shown] == [[64, 64], [64, 64], [64, 32]]  # without a margin
    for score in result.images:
        alpha, trimap = (grey(sample_set / key / f"{score.name}.png") for key in ("alpha", "trimap"))
        image = colours(sample_set / "image" / f"{score.name}.png")
        expected = (predict_alpha(network, image, (trimap // 127).astype(np.uint8)) * 255).floor().numpy()
        expected[trimap == 0], expected[trimap == 255] = 0, 255
        written = grey(tmp_path / "out/alpha" / f"{score.name}.png")
        np.testing.assert_array_equal(written, expected)
        assert scores_of(score) == plain_scores(written, alpha, trimap)
        assert score.unknown_pixels == (trimap == 128).sum()
        assert score.sad > 0
    assert result.mean == {key: pytest.approx(np.mean([getattr(s, key) for s in result.images])) for key in METRICS}

    content = json.loads((tmp_path / "out/scores.json").read_text())
    assert content["mean"] == result.mean
    assert content["left_out"] == []
    assert (content["checkpoint"], content["trimap"], content["seed"]) == (str(tmp_path / "net.pt"), "files", None)
    assert content["images"][1] == {
        "name": "b", "image": f"{sample_set}/image/b.png", "trimap": f"{sample_set}/trimap/b.png",
        "alpha": f"{sample_set}/alpha/b.png", "prediction": "alpha/b.png",
        "unknown_pixels": result.images[1].unknown_pixels, **scores_of(result.images[1]),
        "region_pixels": result.images[1].unknown_pixels, "group": None,
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").open(newline="")))
    assert [row["name"] for row in rows] == ["a", "b", "c", "mean"]
    assert {key: float(rows[2][key]) for key in METRICS} == scores_of(result.images[2])
    assert {key: float(rows[3][key]) for key in METRICS} == result.mean
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["alpha", "scores.csv", "scores.json"]


def test_alpha_is_cut_to_8_bits_not_rounded(run, sample_set, tmp_path):
    constant = StandIn(compute=lambda x: torch.full_like(x[:, :1], 99.9 / 255))
    run(cases_of(sample_set, "image", "trimap", "alpha"), constant, out=tmp_path / "out")
    assert np.unique(grey(tmp_path / "out/alpha/a.png")).tolist() == [0, 99, 255]


def test_nothing_is_written_without_out(run, sample_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result, _ = run(cases_of(sample_set, "image", "trimap", "alpha"), StandIn())
    assert result.images[0].prediction is None
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_large_image_is_not_cut_by_default(run, sample_set, monkeypatch):
    monkeypatch.setattr("dptmat.inference.TILE", 448)
    for folder, content in (
        ("image", np.zeros((40, 6000, 3), np.uint8)),
        ("trimap", np.full((40, 6000), 128, np.uint8)),
    ):
        write(sample_set / folder / "a.png", content)
    write(sample_set / "alpha/a.png", np.zeros((40, 6000), np.uint8))
    for tile, widest in ((0, 6016), (448, 448)):
        network = StandIn()
        run(cases_of(sample_set, "image", "trimap", "alpha")[:1], network, tile=tile)
        assert max(x.shape[3] for x in network.shown) == widest
    with pytest.raises(UserError, match="`tile` must be 0 or a multiple of 224"):
        run([], network, tile=100)


def half(x):
    return torch.full_like(x[:, :1], 0.5)


def test_known_regions_follow_the_trimap_unless_the_network_takes_none(run, sample_set, tmp_path):
    cases = cases_of(sample_set, "image", "trimap", "alpha")
    mg = MGMatting.__new__(type("Mixed", (StandIn, MGMatting), {}))
    StandIn.__init__(mg, 4, half)
    compiled = StandIn(None, half)
    compiled._orig_mod = StandIn(3, half)  # as torch.compile wraps it
    for network, values, known in (
        (StandIn(6, half), [0, 127, 255], "from trimap"),
        (mg, [0, 127, 255], "from trimap"),  # whose own scripts do not
        (StandIn(3, half), [127], "as predicted"),
        (compiled, [127], "as predicted"),
    ):
        result, _ = run(cases, network, out=tmp_path / "out")
        assert np.unique(grey(tmp_path / "out/alpha/a.png")).tolist() == values
        assert result.known_regions == known


def test_all_unknown_shows_nothing_and_scores_the_whole_image(run, sample_set, tmp_path):
    network = StandIn(6, half)
    result, _ = run(cases_of(sample_set, "image", "alpha"), network, trimap="all-unknown", out=tmp_path / "out")
    assert all((x[:, 4] == 1).all() and not x[:, [3, 5]].any() for x in network.shown)
    assert [score.unknown_pixels for score in result.images] == [h * w for h, w in SIZES.values()]
    alpha = grey(sample_set / "alpha/a.png")
    assert scores_of(result.images[0]) == plain_scores(np.full_like(alpha, 127), alpha, np.full_like(alpha, 128))
    assert (grey(tmp_path / "out/trimap/a.png") == 128).all()
    content = json.loads((tmp_path / "out/scores.json").read_text())
    assert content["images"][0]["trimap"] == "trimap/a.png"
    assert (content["trimap"], content["seed"], content["known_regions"]) == ("all-unknown", None, "as predicted")


def test_trimaps_from_alphas_depend_on_the_seed(run, sample_set, tmp_path):
    cases = cases_of(sample_set, "image", "alpha")
    for seed in (0, 5):
        network = StandIn()
        result, _ = run(cases, network, trimap="from-alpha", seed=seed, out=tmp_path / "out")
        trimap = from_alpha(grey(sample_set / "alpha/b.png"), "b", seed)
        np.testing.assert_array_equal(grey(tmp_path / "out/trimap/b.png"), LEVELS[trimap])
        np.testing.assert_array_equal(network.shown[1][0, 4, :33, :64].numpy(), trimap == 1)
        assert result.images[1].unknown_pixels == (trimap == 1).sum()
        assert result.seed == json.loads((tmp_path / "out/scores.json").read_text())["seed"] == seed


# ---- files


def test_predictions_are_scored_as_they_are(run, sample_set, tmp_path):
    (sample_set / "prediction").mkdir()
    for name in SIZES:
        write(sample_set / f"prediction/{name}.png", colours(sample_set / f"image/{name}.png")[:, :, 0])
    result, lines = run(cases_of(sample_set, "alpha", "trimap", "prediction"), out=tmp_path / "out")
    assert lines == []
    assert result.known_regions == "as predicted"
    for score in result.images:
        prediction, alpha, trimap = (
            grey(sample_set / k / f"{score.name}.png") for k in ("prediction", "alpha", "trimap")
        )
        assert scores_of(score) == plain_scores(prediction, alpha, trimap)
        cleaned = np.where(trimap == 128, prediction, trimap)
        assert metrics.grad(cleaned, alpha, trimap) != score.grad
        assert (score.image, score.prediction) == (None, f"{sample_set}/prediction/{score.name}.png")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scores.csv", "scores.json"]
    assert run(cases_of(sample_set, "alpha", "trimap", "prediction", "image"))[0].images[0].image == (
        f"{sample_set}/image/a.png"
    )


def test_alphas_of_16_bits(run, sample_set):
    alpha = grey(sample_set / "alpha/a.png")
    before, _ = run(cases_of(sample_set, "image", "trimap", "alpha"), StandIn())
    write(sample_set / "alpha/a.png", alpha.astype(np.uint16) * 257)
    after, _ = run(cases_of(sample_set, "image", "trimap", "alpha"), StandIn())
    assert before == after


# ---- what cannot be scored


def cut_file(folder):
    content = (folder / "image/b.png").read_bytes()
    (folder / "image/b.png").write_bytes(content[: len(content) // 2])
    return "image/b.png cannot be read"


def other_size(folder):
    write(folder / "alpha/b.png", np.zeros((33, 63), np.uint8))
    return "sizes differ: image 64 x 33, trimap 64 x 33, alpha 63 x 33 pixels"


def other_values(folder):
    trimap = grey(folder / "trimap/b.png")
    trimap[0, :5] = 127
    write(folder / "trimap/b.png", trimap)
    return "trimap/b.png holds 127 (5 pixels); expected 0, 128 and 255"


@pytest.mark.parametrize("damage", [cut_file, other_size, other_values])
def test_one_bad_image_is_named_and_the_rest_scored(run, sample_set, tmp_path, dptmat, damage):
    whole, _ = run(cases_of(sample_set, "image", "trimap", "alpha"), StandIn())
    message = damage(sample_set)
    result, lines = run(cases_of(sample_set, "image", "trimap", "alpha"), StandIn(), out=tmp_path / "out")
    assert [score.name for score in result.images] == ["a", "c"]
    assert [scores_of(score) for score in result.images] == [scores_of(whole.images[i]) for i in (0, 2)]
    assert result.mean["sad"] == pytest.approx((whole.images[0].sad + whole.images[2].sad) / 2)
    (line,) = lines
    assert line.startswith("left out: b: ")
    assert message in line
    (left,) = json.loads((tmp_path / "out/scores.json").read_text())["left_out"]
    assert left["name"] == "b"
    assert message in left["reason"]


def test_no_unknown_pixel_is_reported_and_not_in_the_mean(run, sample_set, tmp_path):
    write(sample_set / "trimap/b.png", np.zeros(SIZES["b"], np.uint8))
    result, lines = run(cases_of(sample_set, "image", "trimap", "alpha"), StandIn(), out=tmp_path / "out")
    a, b, c = result.images
    assert np.isnan(b.mse)
    assert (b.sad, b.grad, b.conn, b.unknown_pixels) == (0, 0, 0, 0)
    assert result.mean["mse"] == pytest.approx((a.mse + c.mse) / 2)
    assert result.mean["sad"] == pytest.approx((a.sad + c.sad) / 2)
    assert lines == ["b: its trimap has no unknown pixel; MSE is undefined, the mean is without it"]
    assert json.loads((tmp_path / "out/scores.json").read_text())["images"][1]["mse"] is None
    assert "mean of 2" in evaluate.table(result)


def test_an_empty_alpha_is_scored(run, sample_set):
    write(sample_set / "alpha/b.png", np.zeros(SIZES["b"], np.uint8))
    result, lines = run(cases_of(sample_set, "image", "trimap", "alpha"), StandIn())
    assert (len(result.images), lines) == (3, [])
    result, lines = run(cases_of(sample_set, "image", "alpha"), StandIn(), trimap="from-alpha")
    assert (len(result.images), len(lines)) == (3, 1)  # its trimap has no unknown pixel


def test_nothing_can_be_scored(run, sample_set, tmp_path):
    for name in SIZES:
        (sample_set / f"alpha/{name}.png").write_bytes(b"text")
    result, lines = run(cases_of(sample_set, "image", "trimap", "alpha"), StandIn(), out=tmp_path / "out")
    assert len(lines) == 3
    assert all(np.isnan(value) for value in result.mean.values())
    content = json.loads((tmp_path / "out/scores.json").read_text())
    assert (content["images"], content["mean"]) == ([], dict.fromkeys(METRICS))


def test_an_alpha_that_is_not_finite_is_left_out(run, sample_set):
    broken = StandIn(compute=lambda x: x[:, :1] / 0 * 0)
    result, lines = run(cases_of(sample_set, "image", "trimap", "alpha"), broken)
    assert result.images == []
    assert lines[0] == "left out: a: the network's alpha is not finite everywhere; use another checkpoint"


def test_the_test_set_is_never_written_over(run, sample_set, tmp_path):
    (tmp_path / "linked").symlink_to(sample_set)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/alpha").symlink_to(sample_set / "alpha")
    before = {path: path.read_bytes() for path in sample_set.rglob("*.png")}
    for keys, options in (
        (("image", "trimap", "alpha"), {"out": sample_set}),
        (("image", "trimap", "alpha"), {"out": tmp_path / "linked"}),
        (("image", "trimap", "alpha"), {"out": tmp_path / "out"}),
    ):
        cases = cases_of(sample_set, *keys)
        with pytest.raises(UserError, match=f"`out` {options['out']} holds .*, which is read; give another folder"):
            run(cases, StandIn(), **options)
    cases = pair(alpha=sample_set / "alpha", prediction=sample_set / "image")
    with pytest.raises(UserError, match=f"`out` {sample_set} holds .*, which is read"):
        run(cases, out=sample_set, trimap="from-alpha")  # there are trimaps, which are not even read
    assert {path: path.read_bytes() for path in sample_set.rglob("*.png")} == before


def test_wrong_arguments(run, sample_set):
    cases = cases_of(sample_set, "image", "alpha")
    with pytest.raises(ValueError, match="a case must have image, trimap, alpha; .* lacks trimap"):
        run(cases, StandIn())
    with pytest.raises(ValueError, match="a case must have trimap, alpha, prediction; .* lacks trimap, prediction"):
        run(cases)
    with pytest.raises(ValueError, match="`trimap` must be files, all-unknown or from-alpha, got 'none'"):
        run(cases, StandIn(), trimap="none")


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "a\r=1", "a\nb", 'a"b,c', "'quoted"])
def test_names_stay_names_in_a_spreadsheet(tmp_path, name):
    score = Score(name, None, None, None, None, 4, 1.0, 2.0, 3.0, 4.0, 5.0, 4)
    evaluation = evaluate.Evaluation([score], dict.fromkeys(METRICS, 1.0), [], None, "files", None, "as predicted")
    evaluate.write_scores(tmp_path, evaluation)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(newline="")))
    assert [row["sad"] for row in rows] == ["1.0", "1.0"]
    assert not rows[0]["name"].startswith(tuple("=+-@\t\r"))
    assert rows[0]["name"].removeprefix("'" if name[0] != "'" else "") == name
    assert json.loads((tmp_path / "scores.json").read_text())["images"][0]["name"] == name
    assert len(evaluate.table(evaluation).splitlines()) == 4


# ---- many images


def test_threads_keep_the_order_and_hold_few_items():
    taken = []

    def items():
        for i in range(50):
            taken.append(i)
            yield i

    with ThreadPoolExecutor(4) as threads:
        for i, result in enumerate(map_ahead(threads, lambda x: x * x, items(), 4)):
            assert result == i * i
            assert len(taken) <= i + 1 + 4
    assert len(taken) == 50


def test_the_table_is_in_the_scaling_of_papers():
    one = {"image": None, "trimap": None, "alpha": "a", "prediction": None, "unknown_pixels": 3, "region_pixels": 3}
    scores = [Score(f"picture{i}", **one, sad=20.96, mse=0.0031, grad=6.97, conn=15.92, mad=0.0262) for i in range(21)]
    mean = {"sad": 20.96, "mse": 0.0031, "grad": 6.97, "conn": 15.92, "mad": 0.0262}
    for count, lines in ((20, 23), (21, 3)):
        table = evaluate.table(evaluate.Evaluation(scores[:count], mean, [], None, "files", None, "as predicted"))
        assert len(table.splitlines()) == lines
        assert table.splitlines()[0] == "errors in the unknown region of the trimap; known regions as predicted"
        assert table.splitlines()[1].split() == ["SAD", "MSE", "x", "1e-3", "Grad", "Conn", "MAD", "x", "1e-3"]
        row = ["mean", "of", str(count), "20.960", "3.100", "6.970", "15.920", "26.200"]
        assert table.splitlines()[-1].split() == row


# ---- the command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "net.pt"
    network = create_model("unet_resnet10t")
    torch.save({"model": network.state_dict(), "config": {"model": "unet_resnet10t", "trimap": True}}, path)
    return path


def test_a_network_and_its_written_alphas_are_judged_alike(sample_set, tmp_path, dptmat, checkpoint, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, told = dptmat(
        "evaluate", "--checkpoint", checkpoint, "--data", "set", "--out", "one", "--device", "cpu"
    )
    assert status == 0
    assert "predictions are 0 and 255 where the trimap is, as in published results" in told
    assert [line.split()[0] for line in printed.splitlines()[2:6]] == ["a", "b", "c", "mean"]
    status, again, told = dptmat(
        "evaluate", "--predictions", tmp_path / "one/alpha", "--data", sample_set, "--out", tmp_path / "two"
    )
    assert status == 0
    assert "predictions are scored as they are" in told
    assert again.splitlines()[1:6] == printed.splitlines()[1:6]
    assert printed.startswith("errors in the unknown region of the trimap; known regions from trimap\n")
    one, two = (json.loads((tmp_path / name / "scores.json").read_text()) for name in ("one", "two"))
    assert one["mean"] == two["mean"]
    assert (one["checkpoint"], two["checkpoint"]) == (str(checkpoint), None)
    assert one["images"][0]["image"] == two["images"][0]["image"] == f"{sample_set}/image/a.png"  # absolute


def test_the_command_names_what_it_leaves_out(sample_set, dptmat, checkpoint):
    words = ["evaluate", "--checkpoint", checkpoint, "--data", sample_set, "--trimap", "from-alpha", "--seed", "7"]
    message = cut_file(sample_set)
    status, printed, told = dptmat(*words, "--device", "cpu")
    assert status == 1
    assert message in told
    assert "Traceback" not in told
    assert "mean of 2" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "{set}"], "give one of --checkpoint, a network, and --predictions, a folder of alphas"),
        (["--data", "{set}", "--checkpoint", "{net}", "--predictions", "{set}/alpha"], "give one of --checkpoint"),
        (["--data", "{set}/missing", "--checkpoint", "{net}"], "missing is no folder"),
        (["--data", "{set}/alpha", "--checkpoint", "{net}"], "is laid out like no known test set: merged, alpha_copy"),
        (["--checkpoint", "{net}"], "--image is missing; give a folder"),
        (["--checkpoint", "{net}", "--image", "{set}/image"], "--alpha is missing; give a folder"),
        (
            ["--checkpoint", "{net}", "--image", "{set}/image", "--alpha", "{set}/alpha"],
            "--trimap is missing; give a folder, or all-unknown or from-alpha if there are none",
        ),
        (["--checkpoint", "{net}", "--data", "{set}", "--alpha", "{set}/two"], "has no partner of a of --image"),
        (["--predictions", "{set}/two", "--data", "{set}"], "--predictions {set}/two has no partner of a of --alpha"),
        (["--checkpoint", "{set}/none.pt", "--data", "{set}"], "none.pt cannot be read"),
        (["--checkpoint", "{net}", "--data", "{set}", "--tile", "500"], "--tile must be 0 or a multiple of 224"),
        (["--checkpoint", "{net}", "--data", "{set}", "--out", "{set}"], "--out {set} holds {set}/"),
        (["--checkpoint", "{net}", "--data", "{set}", "--out", "{net}"], "is a file; give the name of a folder"),
        (["--checkpoint", "{net}", "--data", "{set}", "--amp", "fp16"], "--amp fp16 needs a GPU"),
        (["--checkpoint", "{net}", "--data", "{set}", "--seed", "-1"], "--seed"),
    ],
)
def test_bad_options_give_one_line_and_status_2(sample_set, dptmat, checkpoint, words, message):
    (sample_set / "two").mkdir()
    for name in ("b", "c"):
        (sample_set / f"two/{name}.png").write_bytes((sample_set / f"alpha/{name}.png").read_bytes())
    status, printed, told = dptmat(
        "evaluate", *(word.format(set=sample_set, net=checkpoint) for word in words), "--device", "cpu"
    )
    assert (status, printed) == (2, "")
    assert message.format(set=sample_set) in told
    assert len([line for line in told.splitlines() if line.strip()]) == 1
