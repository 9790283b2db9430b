"""The page on a run: it needs nothing but itself, says what is in the files, escapes names, and works in a browser."""

import base64
import collections
import html.parser
import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from dptmat.report.page import report

HOSTILE = '<script>alert("x")</script>&amp;.png'
SIZE = 48, 64  # height and width of the test images, in pixels


class Document(html.parser.HTMLParser):
    """A page: ``tags``, (name, attributes) in their order, and ``texts``."""

    def __init__(self, text):
        super().__init__()
        self.tags, self._open = [], []
        self.texts = collections.defaultdict(list)  # of each element, under its tag and under each of its classes
        self.feed(text)
        assert not self._open, "a tag is not closed"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag in ("meta", "link", "img", "input"):
            return
        names = (tag, *attributes.get("class", "").split())
        for name in names:
            self.texts[name].append("")
        self._open.append((tag, [(name, len(self.texts[name]) - 1) for name in names]))

    def handle_endtag(self, tag):
        opened, _ = self._open.pop()
        assert opened == tag, f"{opened} is ended by {tag}"

    def handle_startendtag(self, tag, attributes):  # of SVG
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        for _, names in self._open:
            for name, at in names:
                self.texts[name][at] += data

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]

    def words(self, name):
        return [" ".join(text.split()) for text in self.texts[name]]


def pixels(attributes):
    """Pixels of an image of the page."""
    encoded = base64.b64decode(attributes["src"].partition("base64,")[2], validate=True)
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)


def write_run(run, *, lines=30, names=(), validations=0, settings='model = "gca"\ndata = "photos"\nsteps = 50\n'):
    """A run as the trainings and ``dptmat evaluate`` write it: loss is 3 / step; SAD of the k-th image is k + 1.5."""
    run.mkdir()
    (run / "config.toml").write_text(settings)
    with open(run / "log.jsonl", "w") as log:
        for step in range(1, lines + 1):
            numbers = {"loss": 3 / step, "l1": 1 / step, "comp": 2 / step, "grad_norm": None if step == 2 else 1.5}
            speed = {"learning_rate": 1e-4, "images_per_second": 1234.4, "waited": 0.015, "waited_host": 0.4}
            log.write(json.dumps({"step": step, **numbers, **speed}) + "\n")
            if step <= validations:
                scores = {"sad": 40.25 / step, "mse": 0.01, "grad": 1.0, "conn": 2.0}
                log.write(json.dumps({"step": step, "validation": scores}) + "\n")
        log.write(json.dumps({"step": lines, "advice": "use --threads 8"}) + "\n")
        log.write('{"step": 999, "loss": 7')  # cut short by a kill
    if names:
        write_evaluation(run, names)
    return run


def write_evaluation(run, names):
    inputs, folder = run.parent / "inputs", run / "evaluation"
    for path in (inputs / "image", inputs / "trimap", inputs / "alpha", folder / "alpha"):
        path.mkdir(parents=True)
    generator = np.random.default_rng(0)
    images = []
    for k, name in enumerate(names):
        paths = {kind: str(inputs / kind / f"{k}.png") for kind in ("image", "trimap", "alpha")}
        paths["prediction"] = f"alpha/{k}.png"
        trimap = np.repeat(np.array([0, 128, 255], np.uint8), (16, 32, 16))[None].repeat(SIZE[0], 0)
        alpha = np.where(trimap == 128, generator.integers(0, 128, SIZE), trimap).astype(np.uint8)
        cv2.imwrite(paths["image"], generator.integers(0, 256, (*SIZE, 3)))
        cv2.imwrite(paths["trimap"], trimap)
        cv2.imwrite(paths["alpha"], alpha)
        cv2.imwrite(str(folder / paths["prediction"]), np.where(trimap == 128, alpha + 51, trimap))
        scores = {"sad": k + 1.5, "mse": 0.0025, "grad": 3.25, "conn": float("nan") if k else None}
        images.append({"name": name, **paths, "unknown_pixels": 32 * SIZE[0], **scores})
    mean = {"sad": 98.765, "mse": 0.0031, "grad": 7.0, "conn": None}
    scores = {"images": images, "mean": mean, "left_out": [{"name": "bad", "reason": "bad.png <cannot> be read"}]}
    (folder / "scores.json").write_text(json.dumps(scores | {"checkpoint": "/c.pt", "trimap": "files", "seed": None}))


def page_on(run):
    out = run.parent / "page.html"
    (run.parent / "inputs").mkdir(exist_ok=True)
    report(run, out, [run.parent / "inputs"])
    return Document(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A fine-tuning with two test images and both contact sheets; read only."""
    folder = tmp_path_factory.mktemp("report")
    settings = 'model = "gca"\nfg = "foregrounds"\nsteps = 50\ncompile = false\n'
    run = write_run(folder / "run", names=["leaf", HOSTILE], validations=3, settings=settings)
    for name in ("preview.png", "predictions.png"):
        cv2.imwrite(str(run / name), np.full((20, 30, 3), 200, np.uint8))
    return run


def test_the_page_needs_nothing_but_itself(run):
    document = page_on(run)
    links = [value for _, attributes in document.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert {link[1:] for link in links if link[0] == "#"} <= {attributes.get("id") for _, attributes in document.tags}
    policy = next(meta["content"] for meta in document.all("meta") if "http-equiv" in meta)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"url\(|@import|https?:", " ".join(document.texts["style"]))


def test_everything_has_a_name_for_those_who_do_not_see_it(run):
    document = page_on(run)
    assert all(len(image["alt"]) > 5 for image in document.all("img"))
    assert all(field["aria-label"] for field in document.all("input"))
    identifiers = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert len(document.all("svg")) == 6
    for drawing in document.all("svg"):
        assert drawing["role"] == "img"
        assert set(drawing["aria-labelledby"].split()) <= set(identifiers)
    assert document.words("title")[1:3] == [
        "Loss and its parts, logarithmic scale, against the step", "SAD of the validation, against the step"
    ]  # fmt: skip
    assert document.words("desc")[1] == "sad goes from 40.25 to 13.42, and lies between 13.42 and 40.25"


def test_the_head_has_settings_and_last_numbers(run):
    document = page_on(run)
    assert document.words("h1") == ["Fine-tuning of gca"]
    shown = dict(zip(document.words("dt"), document.words("dd"), strict=True))
    assert shown["step"] == "30"
    assert shown["Steps"] == "30 of 50"  # the cut line is not read
    assert shown["loss"] == "0.1"
    assert shown["images per second"] == "1,234"
    assert shown["of the time waited for data"] == "1.5 %"
    assert shown["SAD of the last validation"] == "13.42"
    assert shown["SAD of the test images"] == "98.77"
    assert shown["Foregrounds"] == "foregrounds"
    assert document.words("settings") == ["modelgca fgforegrounds steps50 compilefalse"]


def test_the_curves_are_those_of_the_log(run):
    document = page_on(run)
    assert document.words("figcaption")[:6] == [
        "Loss and its parts, logarithmic scale", "SAD of the validation", "Images per second",
        "Share of the time waited for data, %", "Learning rate", "Norm of the gradient",
    ]  # fmt: skip
    assert document.words("legend") == ["loss 0.1 l1 0.03333 comp 0.06667", "13.42", "1,234", "1.5", "1e-4", "1.5"]
    assert document.words("desc")[0] == (
        "loss goes from 3 to 0.1, and lies between 0.1 and 3; "
        "l1 goes from 1 to 0.03333, and lies between 0.03333 and 1; "
        "comp goes from 2 to 0.06667, and lies between 0.06667 and 2"
    )
    lines = [path["d"] for path in document.all("path") if "stroke: var(--curve-0); stroke-w" in path.get("style", "")]
    assert [line.count("L") + line.count("M") for line in lines] == [30, 3, 30, 30, 30, 29]
    assert [line.count("M") for line in lines] == [1, 1, 1, 1, 1, 2]  # the second norm is missing


def test_a_validation_of_a_pre_training_has_two_curves_and_a_word(tmp_path):
    run = write_run(tmp_path / "run")
    text = (run / "log.jsonl").read_text()
    with open(run / "log.jsonl", "w") as log:
        log.write(text[: text.rindex("\n") + 1])
        for step in (10, 20):
            scores = {"sad": 40.0, "mse": 0.01, "grad": 1.0, "conn": 2.0, "sad_without_trimap": 3000.0 / step}
            log.write(json.dumps({"step": step, "validation": scores}) + "\n")
    document = page_on(run)
    assert document.words("figcaption")[1:3] == [
        "SAD of the validation, trimaps shown: in the unknown region",
        "SAD of the validation, no trimaps shown: over the whole image",
    ]
    assert document.words("legend")[1:3] == ["40", "150"]
    shown = dict(zip(document.words("dt"), document.words("dd"), strict=True))
    assert shown["SAD of the last validation"] == "40"
    assert shown["without trimaps, of the whole image"] == "150"
    word = "It does not rank pre-trainings: which of two makes the better start shows only after a fine-tuning."
    assert any(word in text for text in document.words("p"))


def test_a_validation_of_a_fine_tuning_has_one_curve(run):
    document = page_on(run)
    assert not any("does not rank" in text for text in document.words("p"))


def test_the_table_has_every_score(run):
    document = page_on(run)
    assert document.words("scores") == [
        "Image Unknown pixels SAD MSE × 10⁻³ Grad Conn leaf 1,536 1.50 2.50 3.25 – "
        f"{HOSTILE} 1,536 2.50 2.50 3.25 – Mean 98.77 3.10 7.00 –"
    ]
    assert "bad: bad.png <cannot> be read" in document.words("li")


def test_names_are_text_whatever_they_hold(tmp_path):
    run = write_run(tmp_path / "a <b> & c", names=[HOSTILE, "\udcff"], settings='model = "<i>\'gca"\ndata = "<u>"\n')
    with open(run / "log.jsonl", "w") as log:
        log.write(json.dumps({"step": 1, "loss": 1, "</script><u>": 2}) + "\n")
        log.write(json.dumps({"left_out": "<script>x\udcff", "reason": "<u>"}) + "\n")
    document = page_on(run)
    assert len(document.all("script")) == 1
    assert not document.all("u")
    assert document.words("legend") == ["loss 1 </script><u> 2"]
    assert "</script><u> goes from 2 to 2" in document.words("desc")[0]
    assert document.words("h1") == ["Pre-training of <i>'gca"]
    assert "<script>x\\udcff: <u>" in document.words("li")
    assert sorted(document.words("h3")) == sorted([HOSTILE, "\\udcff"])


def test_images_are_those_of_the_files(run):
    images = {image["alt"]: pixels(image) for image in page_on(run).all("img")}
    trimap = cv2.imread(str(run.parent / "inputs/trimap/0.png"), cv2.IMREAD_UNCHANGED)
    alpha = cv2.imread(str(run.parent / "inputs/alpha/0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(images["trimap of leaf"], trimap)
    np.testing.assert_array_equal(images["truth of leaf"], alpha)
    np.testing.assert_array_equal(images["prediction of leaf"], np.where(trimap == 128, alpha + 51, alpha))
    assert images["image of leaf"].shape == (*SIZE, 3)
    # Everywhere unknown the error is 51/255 = 0.2, two fifths of the largest that has a colour.
    colors = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0]
    expected = np.where((trimap == 128)[..., None], colors[round(0.4 * 254)], 140)
    np.testing.assert_array_equal(images["error map of leaf"], expected)


def test_large_images_are_scaled_down(tmp_path):
    run = write_run(tmp_path / "run", names=["leaf"])
    for path in [*(tmp_path / "inputs").rglob("*.png"), *run.rglob("*.png")]:
        small = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), cv2.resize(small, (1290, 968), interpolation=cv2.INTER_NEAREST))
    images = page_on(run).all("img")
    assert {(image["width"], image["height"]) for image in images} == {("640", "480")}
    for image in images:
        assert pixels(image).shape[:2] == (480, 640)
        assert image["src"].startswith("data:image/jpeg" if image["alt"].startswith("image") else "data:image/png")
    trimap = next(pixels(image) for image in images if image["alt"] == "trimap of leaf")
    assert set(np.unique(trimap)) == {0, 128, 255}


@pytest.mark.parametrize("kind", ["image", "trimap", "alpha", "prediction"])
def test_an_image_that_was_moved_is_named_and_the_rest_is_shown(dptmat, tmp_path, kind):
    run = write_run(tmp_path / "run", names=["leaf", "fur"])
    gone = (run / "evaluation/alpha" if kind == "prediction" else tmp_path / "inputs" / kind) / "1.png"
    gone.unlink()
    status, output, _ = dptmat("report", "--run", run, "--images", tmp_path / "inputs", "--out", tmp_path / "page.html")
    assert status == 0
    caption = "truth" if kind == "alpha" else kind
    assert f"missing: fur: no {caption}: {gone} cannot be read: No such file" in output
    document = Document((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert document.words("missing")[0].startswith(f"The {caption} is missing: {gone}")
    assert "fur 1,536 2.50 2.50 3.25 –" in document.words("scores")[0]
    alts = [image["alt"] for image in document.all("img")]
    assert len([alt for alt in alts if alt.endswith("leaf")]) == 5
    # The error map needs truth, prediction and trimap.
    assert len([alt for alt in alts if alt.endswith("fur")]) == (4 if kind == "image" else 3)


def test_images_of_different_sizes_are_not_compared(tmp_path):
    run = write_run(tmp_path / "run", names=["leaf"])
    cv2.imwrite(str(run / "evaluation/alpha/0.png"), np.zeros((10, 10), np.uint8))
    document = page_on(run)
    assert "leaf: sizes differ" in document.words("missing")[0]
    assert not document.texts["compare"]
    assert {image["alt"].split()[0] for image in document.all("img")} == {"image", "trimap", "truth", "prediction"}


def test_what_was_not_scored_has_no_error(tmp_path):
    """A test image without truth and trimap: its image and prediction are shown."""
    run = write_run(tmp_path / "run", names=["leaf"])
    path = run / "evaluation/scores.json"
    scores = json.loads(path.read_text())
    scores["images"][0] |= dict.fromkeys(("trimap", "alpha", "unknown_pixels", "sad", "mse", "grad", "conn"))
    path.write_text(json.dumps(scores))
    document = page_on(run)
    assert {image["alt"] for image in document.all("img")} == {"image of leaf", "prediction of leaf"}
    assert "Conn leaf – – – – – Mean" in document.words("scores")[0]
    assert not document.texts["missing"]


def test_of_many_images_the_worst_middle_and_best_are_shown(tmp_path):
    run = write_run(tmp_path / "run", names=[f"image{k:03}" for k in range(101)])
    document = page_on(run)
    shown = [*range(100, 92, -1), *range(54, 46, -1), *range(7, -1, -1)]  # the k-th image has the k-th least SAD
    assert document.words("h3") == [f"image{k:03}" for k in shown]
    assert all(f"image{k:03} 1,536 {k + 1.5:.2f} " in document.words("scores")[0] for k in range(101))
    assert any("24 of the 101 images" in text and "77 are left out" in text for text in document.words("p"))
    assert [link["href"] for link in document.all("a")] == [f"#image-{k + 1}" for k in sorted(shown)]


def test_a_run_without_evaluation_and_images_says_how_to_get_them(tmp_path):
    run = write_run(tmp_path / "a run")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/step-000000030.pt").touch()
    document = page_on(run)
    assert document.words("h1") == ["Pre-training of gca"]
    command = f"dptmat evaluate --checkpoint '{run}/checkpoints/step-000000030.pt'"
    assert document.words("pre")[0].startswith(command)
    assert "--image DIR --trimap DIR --alpha DIR" in document.words("pre")[0]
    assert document.words("pre")[0].endswith(f"--out '{run}/evaluation'")
    assert document.words("h2") == ["Training", "Test images"]


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    document = page_on(write_run(tmp_path / "run", lines=0))
    assert "The log holds no numbers yet." in document.words("p")
    assert len(page_on(write_run(tmp_path / "other", lines=1)).texts["chart"]) == 5


def test_a_long_log_gives_a_small_page(tmp_path):
    run = write_run(tmp_path / "run", lines=50_000)
    report(run, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 300_000


def test_a_page_needs_none_of_the_libraries_of_training(tmp_path):
    """In a process of its own, where importing them fails."""
    write_run(tmp_path / "run", names=["leaf"])
    without = ["torch", "cupy", "nvidia", "nvidia.dali", "tensorboard", "matplotlib.pyplot"]
    block = f"sys.modules.update(dict.fromkeys({without}))"
    program = f"import sys; {block}; from dptmat.report.page import report; report('run', 'page.html')"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "{tmp}/missing"], "--run {tmp}/missing is no folder; give the folder that a training wrote"),
        (["--run", "{tmp}"], "--run {tmp} holds no log.jsonl; give the folder that a training wrote"),
        (["--run", "{tmp}/run", "--out", "{tmp}/missing/page.html"], "--out {tmp}/missing/page.html is a folder or in"),
        (["--run", "{tmp}/run", "--out", "{tmp}"], "--out {tmp} is a folder or in none"),
        (["--run", "{tmp}/foreign"], "log.jsonl: line 2 is not of a training's log"),
        (["--run", "{tmp}/text"], "log.jsonl: line 1 is not of a training's log"),
        (["--run", "{tmp}/unset"], "{tmp}/unset/config.toml is missing, or no file; give the folder that"),
        (["--run", "{tmp}/scores"], "scores.json is not what dptmat evaluate writes: it has no 'mean'"),
        (["--run", "{tmp}/broken"], "scores.json is not what dptmat evaluate writes: Expecting value"),
        ([], "Missing option '--run'"),
    ],
)  # fmt: skip
def test_bad_input_gives_one_line_and_status_2(dptmat, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    for name in ("run", "foreign", "text", "unset", "scores", "broken"):
        write_run(tmp_path / name)
        (tmp_path / name / "evaluation").mkdir()
    (tmp_path / "foreign/log.jsonl").write_text('{"step": 1, "loss": 1}\n[1]\n{"step": 3}\n')
    (tmp_path / "text/log.jsonl").write_text('{"step": 1, "loss": "low"}\n')
    (tmp_path / "unset/config.toml").unlink()
    (tmp_path / "scores/evaluation/scores.json").write_text('{"images": []}')
    (tmp_path / "broken/evaluation/scores.json").write_text("scores")
    status, output, error = dptmat("report", *[word.format(tmp=tmp_path) for word in words])
    assert (status, output) == (2, "")
    assert message.format(tmp=tmp_path) in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.html*"))


@pytest.mark.parametrize("kind", ["image", "trimap", "alpha", "prediction"])
@pytest.mark.parametrize("way", ["absolute", "dots", "link", "folder"])
def test_no_image_from_outside_the_run_gets_into_the_page(dptmat, tmp_path, kind, way):
    run = write_run(tmp_path / "run", names=["leaf", "fur"])
    inside = run / "evaluation/alpha"
    for other in ("image", "trimap", "alpha"):
        (tmp_path / "inputs" / other).rename(run / "evaluation" / f"{other}s")
    secret = tmp_path / "run of another/secret.png"
    secret.parent.mkdir()
    cv2.imwrite(str(secret), np.full(SIZE, 77, np.uint8))
    (inside / "link.png").symlink_to(secret)
    (run / "folder").symlink_to(secret.parent)
    path = {
        "absolute": str(secret), "dots": "../../run of another/secret.png", "link": "alpha/link.png",
        "folder": str(run / "folder/secret.png"),
    }[way]  # fmt: skip
    scores = json.loads((run / "evaluation/scores.json").read_text())
    for k, entry in enumerate(scores["images"]):
        entry |= {other: f"{other}s/{k}.png" for other in ("image", "trimap", "alpha")} | {kind: path}
    (run / "evaluation/scores.json").write_text(json.dumps(scores))
    status, output, _ = dptmat("report", "--run", run, "--out", tmp_path / "page.html")
    assert status == 0
    assert output.count(f"left out: 2 images that are not in --run {run}, such as ") == 1
    assert "name the folder that they are in by --images" in output
    document = Document((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert not any((pixels(image) == 77).all() for image in document.all("img"))
    assert len(document.all("img")) == 2 * (4 if kind == "image" else 3)  # the error map needs the other three
    status, _, _ = dptmat("report", "--run", run, "--images", secret.parent, "--out", tmp_path / "page.html")
    shown = Document((tmp_path / "page.html").read_text(encoding="utf-8")).all("img")
    assert any((pixels(image) == 77).all() for image in shown) or kind == "trimap"


@pytest.mark.parametrize("name", ["log.jsonl", "config.toml", "evaluation/scores.json", "preview.png"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_file_of_a_run_that_leads_out_of_it_or_is_none_is_not_read(dptmat, tmp_path, name, kind):
    run = write_run(tmp_path / "run", names=["leaf"])
    cv2.imwrite(str(run / "preview.png"), np.zeros((4, 4, 3), np.uint8))
    (run / name).rename(tmp_path / "elsewhere")
    if kind == "link":
        (run / name).symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(run / name)
    status, output, error = dptmat("report", "--run", run, "--out", tmp_path / "page.html")
    if name == "preview.png":
        assert status == 0
        assert "preview" not in output or "left out: 4 images" in output
    else:
        assert (status, output) == (2, "")
        assert name in error
        assert error.count("\n") == 1


def test_a_name_cannot_look_like_a_line_of_the_command(dptmat, tmp_path):
    run = write_run(tmp_path / "run", names=["leaf\npage.html: 9.9 MB\x1b[2J"])
    (run / "evaluation/alpha/0.png").unlink()
    status, output, _ = dptmat("report", "--run", run, "--out", tmp_path / "page.html")
    assert status == 0
    assert "missing: leaf\\npage.html: 9.9 MB\\x1b[2J: no prediction: " in output
    assert not any(line.startswith("page.html: 9.9 MB") for line in output.splitlines())


def deep(levels=100_000):
    return "[" * levels + "]" * levels


LINE = '{"step": 1, "loss": 1.0}\n'


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "loss": true}', '{"step": 1, "loss": [1]}', '{"step": 1, "loss": {"a": 1}}', '{"step": "1"}',
        '{"step": -1, "loss": 1}', '{"step": 1.5, "loss": 1}', '{"step": NaN}', '{"step": Infinity, "loss": 1}',
        '{"step": null, "loss": 1}', '{"step": 1' + "0" * 30 + ', "loss": 1}', '{"step": 1' + "0" * 9999 + "}", "1",
        '{"loss": 1}', '"text"', "null", "[]", "\0", '{"step": 1,', "<html>", deep(),
        '{"step": 1, "x": ' + deep() + "}",
        '{"left_out": 3, "reason": "x"}', '{"left_out": "a"}', '{"left_out": "a", "reason": ["x"]}',
        '{"step": 1, "validation": 3}', '{"step": 1, "validation": {"sad": "low"}}', '{"validation": {"sad": 1}}',
        '{"step": 1, "validation": null}', '{"step": 1, "' + "x" * (1 << 20) + '": 1}', "", "\udcff\udcfe",
        "{" + ", ".join(f'"n{k}": 1' for k in range(99)) + ', "step": 1}',
    ],
)  # fmt: skip
def test_a_broken_line_of_a_log_is_named(dptmat, tmp_path, line):
    run = write_run(tmp_path / "run")
    (run / "log.jsonl").write_text(f"{LINE}{line}\n{LINE}", errors="surrogateescape")
    status, output, error = dptmat("report", "--run", run, "--out", tmp_path / "page.html")
    assert (status, output) == (2, "")
    assert error == f"dptmat: {run}/log.jsonl: line 2 is not of a training's log; restore the file\n"


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 1, "loss": NaN}', '{"step": 1, "loss": Infinity}', '{"step": 1, "loss": 1e308, "l1": -1e308}',
        '{"step": 1, "loss": 1' + "0" * 400 + "}", '{"step": 9007199254740991, "loss": 1}', '{"step": 0, "loss": 0}',
        '{"step": 1, "loss": 9e37, "l1": -9e37, "learning_rate": 9e37}', '{"step": 1, "loss": 1e-320}',
        '{"step": 1, "waited": 9e37, "loss": 1e-30}', '{"step": 1}', '{"step": 1, "skipped": 3, "advice": [1]}',
        '{"left_out": "\\u0000\\ud800\\n", "reason": ""}', '{"step": 1, "validation": {"sad": 1e300}}',
        '{"step": 1, "loss": 1, "step": 2, "$x^{2}$_": 3}', '{"step": 1, "loss": 1}\n{"step": 1, "loss": 2}',
    ],
)  # fmt: skip
def test_odd_numbers_of_a_log_are_no_trouble(dptmat, tmp_path, line):
    run = write_run(tmp_path / "run")
    (run / "log.jsonl").write_text(f"{LINE}{line}\n{LINE}")
    status, _, error = dptmat("report", "--run", run, "--out", tmp_path / "page.html")
    assert (status, error) == (0, "")
    assert "The log holds no numbers" not in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        {"images": 3}, {"images": {"a": 1}}, {"images": [3]}, {"images": [None]}, {"images": [{}]}, {"mean": 3},
        {"mean": []}, {"mean": {}}, {"left_out": 3}, {"left_out": [3]}, {"left_out": [{"name": 1, "reason": "x"}]},
        {"checkpoint": ["x"]}, {"known_regions": {"a": 1}},
        *({"images": {key: value}} for key in ("name", "image", "unknown_pixels", "sad") for value in (
            [1], {"a": 1}, True, "\0" if key == "image" else b"", 10**30 if key == "unknown_pixels" else [None], 1.5
        ) if not (key == "sad" and value == 1.5) and value != b""),
        *({"mean": {"sad": value}} for value in ("1", [1], True)),
    ],
)  # fmt: skip
def test_scores_of_other_kinds_are_refused(dptmat, tmp_path, change):
    run = write_run(tmp_path / "run", names=["leaf"])
    path = run / "evaluation/scores.json"
    scores = json.loads(path.read_text())
    ((key, value),) = change.items()
    if isinstance(value, dict) and key == "images" and "a" not in value:
        scores["images"][0] |= value
    elif isinstance(value, dict) and key == "mean" and value:
        scores["mean"] |= value
    else:
        scores[key] = value
    path.write_text(json.dumps(scores))
    status, output, error = dptmat("report", "--run", run, "--out", tmp_path / "page.html")
    assert (status, output) == (2, "")
    assert error.startswith(f"dptmat: {path} is not what dptmat evaluate writes: ")
    assert error.endswith("; evaluate again\n")
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["", "\0", "[1]", "3", "null", deep(), '{"images": ' + deep() + "}", "\udcff", '{"a"'])
def test_scores_that_are_no_json_are_refused(dptmat, tmp_path, text):
    run = write_run(tmp_path / "run", names=["leaf"])
    (run / "evaluation/scores.json").write_text(text, errors="surrogateescape")
    status, output, error = dptmat("report", "--run", run, "--out", tmp_path / "page.html")
    assert (status, output) == (2, "")
    assert "scores.json is not what dptmat evaluate writes: " in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    [
        'steps = "many"', "steps = 1.5", "steps = [1]", "steps = true", "[model]\na = 1", "data = 2020-01-01", "a",
        "data = \0", f"data = {deep(5000)}", "data = 1" + "0" * 9999, "\udcff = 1", 'a = "' + "x" * (1 << 20) + '"',
        "a = 1\na = 2", "[[fg]]\n",
    ],
)  # fmt: skip
def test_settings_of_other_kinds_are_refused(dptmat, tmp_path, text):
    run = write_run(tmp_path / "run")
    (run / "config.toml").write_text(text, errors="surrogateescape")
    status, output, error = dptmat("report", "--run", run, "--out", tmp_path / "page.html")
    assert (status, output) == (2, "")
    assert "config.toml" in error
    assert error.count("\n") == 1


@pytest.mark.exhaustive
def test_a_log_of_a_million_lines_is_read(tmp_path):
    run = write_run(tmp_path / "run")
    with open(run / "log.jsonl", "w") as log:
        log.writelines(f'{{"step": {step}, "loss": 1.0}}\n' for step in range(1_000_000))
    report(run, tmp_path / "page.html")
    assert "The log holds 1,000,000 lines" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def open_page(browser, run):
    """Function that opens the page of the run; afterwards nothing but it was asked for, and nothing complained."""
    report(run, run.parent / "page.html", [run.parent / "inputs"])
    address = (run.parent / "page.html").as_uri()
    contexts, requests, complaints = [], [], []

    def open_in(scheme="light", width=1280):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield open_in
    for context in contexts:
        context.close()
    assert {url for url in requests if not url.startswith("data:")} == {address}
    assert complaints == []


def screenshot(page, **options):
    return cv2.imdecode(np.frombuffer(page.screenshot(**options), np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.slow
def test_a_browser_shows_all_images_and_drawings(open_page):
    page = open_page()
    page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    assert page.evaluate("[...document.images].map(image => image.naturalWidth)") == [64] * 10 + [30] * 2
    drawings = page.get_by_role("img", name="against the step")
    assert drawings.count() == 6
    for drawing in drawings.all():
        box = drawing.bounding_box()
        assert box["height"] / box["width"] == pytest.approx(240 / 520, abs=0.01)


@pytest.mark.slow
def test_the_policy_of_the_page_lets_nothing_out(browser, run, tmp_path):
    """An image from elsewhere that got into the page is not asked for."""
    report(run, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(text.replace("<main>", '<main><img src="http://localhost:9/x.png">', 1))
    page, said = browser.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.goto((tmp_path / "page.html").as_uri())
    assert "Content Security Policy" in " ".join(said)
    page.close()


@pytest.mark.slow
def test_the_slider_shows_truth_or_prediction_by_keys_and_mouse(open_page):
    page = open_page()
    compare, slider = page.locator(".compare").first, page.locator(".ends input").first
    compare.scroll_into_view_if_needed()
    box = compare.bounding_box()

    def middle():
        """Mean grey level in the second third from the right, where truth is 64 and prediction 115."""
        area = {"x": box["x"] + 0.55 * box["width"], "width": 0.15 * box["width"]}
        return screenshot(page, clip={**box, **area}).mean()

    truth, prediction = pytest.approx(64, abs=8), pytest.approx(115, abs=8)
    assert middle() == prediction  # the cut is in the middle
    slider.focus()
    box = compare.bounding_box()
    page.keyboard.press("End")
    assert middle() == truth
    assert slider.get_attribute("aria-valuetext") == "100 % truth"
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "99 % truth"
    page.keyboard.press("Home")
    assert middle() == prediction
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.1 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], y)
    page.mouse.up()
    assert middle() == truth


@pytest.mark.slow
def test_the_table_sorts(open_page):
    page = open_page()

    def column(at):
        return page.locator(f".scores tbody tr td:nth-child({at})").all_text_contents()

    for order in (["2.50", "1.50"], ["1.50", "2.50"]):
        page.get_by_role("button", name="SAD").click()
        assert column(3) == order
    page.get_by_role("button", name="Image").click()
    assert column(1) == [HOSTILE, "leaf"]


@pytest.mark.parametrize("width", [360, 481, 768, 1000, 1280])
@pytest.mark.slow
def test_a_page_needs_no_scrolling_to_the_side(open_page, width):
    page = open_page(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # what scrolls by itself, such as a command, is no harm
    assert page.locator(".scores").bounding_box()["x"] + page.locator(".scores").bounding_box()["width"] <= width
    smallest = min(box["height"] for box in (text.bounding_box() for text in page.locator(".chart text").all()))
    assert smallest >= 12  # of the lines of text, in pixels


@pytest.mark.parametrize(("scheme", "page_is", "text_is"), [("light", 255, 30), ("dark", 25, 230)])
@pytest.mark.slow
def test_colors_are_those_of_the_scheme(open_page, scheme, page_is, text_is):
    page = open_page(scheme)

    def brightness(selector, name):
        color = page.locator(selector).first.evaluate(f"element => getComputedStyle(element).{name}")
        return np.mean([int(part) for part in re.findall(r"\d+", color)[:3]])

    assert brightness("body", "backgroundColor") == pytest.approx(page_is, abs=10)
    assert brightness("h1", "color") == pytest.approx(text_is, abs=10)
    for selector, name in (
        (".chart text", "fill"),
        (".chart path[style*='curve-0']", "stroke"),
        ("figcaption", "color"),
    ):
        assert abs(brightness(selector, name) - page_is) > 90
    assert screenshot(page)[:10, :10].mean() == pytest.approx(page_is, abs=10)
