"""The page on a run: it needs nothing but itself, says what is in the files, escapes names, and works in a browser."""

import base64
import collections
import html.parser
import json
import re

import cv2
import numpy as np
import pytest
from browser import CHROMIUM, Page

from dptmat.report.curves import number
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


def picture(attributes):
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
    report(run, out)
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
    assert all(drawing.get("aria-label") or drawing.get("aria-hidden") for drawing in document.all("svg")
               if "preserveaspectratio" not in drawing)  # fmt: skip
    identifiers = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)


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
    loss, validation, *_, norm = [json.loads(text) for text in document.texts["script"][:6]]
    assert loss["steps"] == [[step, step] for step in range(1, 31)]
    for (mean,), factor in zip(loss["values"], (3, 1, 2), strict=True):
        assert mean == pytest.approx([factor / step for step in range(1, 31)], rel=5e-6)  # six digits are written
    assert validation["values"] == [[[40.25, 20.125, 13.4167]]]
    assert norm["values"] == [[[1.5, None] + [1.5] * 28]]
    assert document.words("legend")[0] == "step 30 loss 0.1 l1 0.03333 comp 0.06667"


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
    assert len(document.all("script")) == 2  # a curve's numbers, and ours
    assert not document.all("u")
    assert "</script><u>" in document.words("legend")[0]
    assert json.loads(document.texts["script"][0])["values"] == [[[1]], [[2]]]
    assert document.words("h1") == ["Pre-training of <i>'gca"]
    assert "<script>x\\udcff: <u>" in document.words("li")
    assert sorted(document.words("h3")) == sorted([HOSTILE, "\\udcff"])


def test_pictures_are_those_of_the_files(run):
    images = {image["alt"]: picture(image) for image in page_on(run).all("img")}
    trimap = cv2.imread(str(run.parent / "inputs/trimap/0.png"), cv2.IMREAD_UNCHANGED)
    alpha = cv2.imread(str(run.parent / "inputs/alpha/0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(images["trimap of leaf"], trimap)
    np.testing.assert_array_equal(images["truth of leaf"], alpha)
    np.testing.assert_array_equal(images["prediction of leaf"], np.where(trimap == 128, alpha + 51, alpha))
    assert images["image of leaf"].shape == (*SIZE, 3)
    # Everywhere unknown the error is 51/255 = 0.2, two fifths of the largest that has a colour.
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0]
    expected = np.where((trimap == 128)[..., None], colours[round(0.4 * 254)], 140)
    np.testing.assert_array_equal(images["error map of leaf"], expected)


def test_large_pictures_are_scaled_down(tmp_path):
    run = write_run(tmp_path / "run", names=["leaf"])
    for path in [*(tmp_path / "inputs").rglob("*.png"), *run.rglob("*.png")]:
        small = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), cv2.resize(small, (1290, 968), interpolation=cv2.INTER_NEAREST))
    images = page_on(run).all("img")
    assert {(image["width"], image["height"]) for image in images} == {("640", "480")}
    for image in images:
        assert picture(image).shape[:2] == (480, 640)
        assert image["src"].startswith("data:image/jpeg" if image["alt"].startswith("image") else "data:image/png")
    trimap = next(picture(image) for image in images if image["alt"] == "trimap of leaf")
    assert set(np.unique(trimap)) == {0, 128, 255}


@pytest.mark.parametrize("kind", ["image", "trimap", "alpha", "prediction"])
def test_a_picture_that_was_moved_is_named_and_the_rest_is_shown(dptmat, tmp_path, kind):
    run = write_run(tmp_path / "run", names=["leaf", "fur"])
    gone = (run / "evaluation/alpha" if kind == "prediction" else tmp_path / "inputs" / kind) / "1.png"
    gone.unlink()
    status, output, _ = dptmat("report", "--run", run, "--out", tmp_path / "page.html")
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


def test_pictures_of_different_sizes_are_not_compared(tmp_path):
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


def test_of_many_images_the_worst_middle_and_best_are_pictured(tmp_path):
    run = write_run(tmp_path / "run", names=[f"image{k:03}" for k in range(101)])
    document = page_on(run)
    pictured = [*range(100, 92, -1), *range(54, 46, -1), *range(7, -1, -1)]  # the k-th image has the k-th least SAD
    assert document.words("h3") == [f"image{k:03}" for k in pictured]
    assert all(f"image{k:03} 1,536 {k + 1.5:.2f} " in document.words("scores")[0] for k in range(101))
    assert any("24 of the 101 images" in text and "77 are left out" in text for text in document.words("p"))
    assert [link["href"] for link in document.all("a")] == [f"#image-{k + 1}" for k in sorted(pictured)]


def test_a_run_without_evaluation_and_pictures_says_how_to_get_them(tmp_path):
    run = write_run(tmp_path / "a run")
    (run / "checkpoints").mkdir()
    (run / "checkpoints/step-000000030.pt").touch()
    document = page_on(run)
    assert document.words("h1") == ["Pre-training of gca"]
    command = f"dptmat evaluate --checkpoint '{run}/checkpoints/step-000000030.pt'"
    assert document.words("pre")[0].startswith(command)
    assert document.words("pre")[0].endswith(f"--out '{run}/evaluation'")
    assert document.words("h2") == ["Training", "Test images"]


def test_a_run_that_has_just_begun_has_a_page(tmp_path):
    document = page_on(write_run(tmp_path / "run", lines=0))
    assert "The log holds no numbers yet." in document.words("p")
    assert len(page_on(write_run(tmp_path / "other", lines=1)).texts["chart"]) == 5


def test_a_long_log_gives_a_small_page(tmp_path):
    run = write_run(tmp_path / "run", lines=50_000)
    report(run, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 1_500_000


def test_text_and_curves_stand_out_in_both_schemes(run):
    """Contrast of WCAG 2.1, of the relative luminances: 4.5 for text, 3 for what is drawn."""
    page_on(run)
    style = re.search("<style>(.*?)</style>", (run.parent / "page.html").read_text(encoding="utf-8"), re.DOTALL)[1]
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", text)) for text in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for scheme in (light, dark):
        assert len(scheme) == 12
        for name in scheme.keys() - {"page", "soft", "rule"}:
            for ground in ("page", "soft"):
                pair = sorted((luminance(scheme[name]), luminance(scheme[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= (3 if name.startswith("curve") else 4.5), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "{tmp}/missing"], "--run {tmp}/missing is no folder; give the folder that a training wrote"),
        (["--run", "{tmp}"], "--run {tmp} holds no log.jsonl; give the folder that a training wrote"),
        (["--run", "{tmp}/run", "--out", "{tmp}/missing/page.html"], "--out {tmp}/missing/page.html is a folder or in"),
        (["--run", "{tmp}/run", "--out", "{tmp}"], "--out {tmp} is a folder or in none"),
        (["--run", "{tmp}/foreign"], "log.jsonl: line 2 is not of a training's log"),
        (["--run", "{tmp}/text"], "log.jsonl: line 1 is not of a training's log"),
        (["--run", "{tmp}/unset"], "settings {tmp}/unset/config.toml cannot be read as TOML: [Errno 2] No such file"),
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


needs_browser = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium")


@pytest.fixture
def opened(run):
    """Function that opens the page of the run in a browser of its own: a ``Page``, to be used by ``with``."""
    report(run, run.parent / "page.html")

    def open_in(**window):
        page = Page(**window)
        page.open(run.parent / "page.html")
        return page

    return open_in


def box(page, selector):
    """Left, top, width and height of an element in the window, which is scrolled to it."""
    element = f"document.querySelector({json.dumps(selector)})"
    page.run(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    return page.run(f"(box => [box.x, box.y, box.width, box.height])({element}.getBoundingClientRect())")


def window(page):
    return cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)


@needs_browser
def test_a_browser_shows_all_and_asks_for_nothing_else(opened, run):
    with opened() as page:
        asked = [address for address in page.requests if not address.startswith("data:")]
        assert asked == [(run.parent / "page.html").as_uri()]
        assert page.run("[...document.images].map(image => image.naturalWidth)") == [64] * 10 + [30] * 2
        assert page.complaints == []
        # A complaint would have been seen, and the page's policy lets nothing out:
        page.run("new Promise(done => { const i = new Image(); i.onerror = done; i.src = 'http://localhost:9/x.png' })")
        page.run("setTimeout(() => { throw new Error('thrown') }); new Promise(done => setTimeout(done, 100))")
        assert "Content Security Policy" in " ".join(page.complaints)
        assert "thrown" in " ".join(page.complaints)


@needs_browser
def test_the_slider_shows_truth_or_prediction_by_keys_and_mouse(opened):
    with opened() as page:
        x, y, width, height = box(page, ".compare")

        def middle():
            """Mean grey level in the second third from the right, where truth is 64 and prediction 115."""
            right = slice(round(x + 0.55 * width), round(x + 0.7 * width))
            return window(page)[round(y) : round(y + height), right].mean()

        truth, prediction = pytest.approx(64, abs=8), pytest.approx(115, abs=8)
        assert middle() == prediction  # the cut is in the middle
        page.run("document.querySelector('.ends input').focus({preventScroll: true})")
        page.press("End")
        assert middle() == truth
        assert page.run("document.activeElement.getAttribute('aria-valuetext')") == "100 % truth"
        page.press("ArrowLeft")
        assert page.run("document.activeElement.getAttribute('aria-valuetext')") == "99 % truth"
        page.press("Home")
        assert middle() == prediction
        page.point(x + 0.1 * width, y + height / 2, "mousePressed", button="left", buttons=1)
        page.point(x + 0.9 * width, y + height / 2, button="left", buttons=1)
        page.point(x + 0.9 * width, y + height / 2, "mouseReleased", button="left")
        assert middle() == truth
        assert page.complaints == []


@needs_browser
def test_pointing_at_a_curve_reads_its_values(opened):
    with opened() as page:

        def read():
            return " ".join(page.run("document.querySelector('.legend').textContent").split())

        x, y, width, height = box(page, ".plot")
        page.point(x + width * 5 / 29 + 3, y + 10)  # the sixth of 30 steps
        assert read() == "step 6 loss 0.5 l1 0.1667 comp 0.3333"
        assert page.run("document.querySelector('.cursor').getAttribute('visibility')") == "visible"
        page.point(x - 40, y - 40)
        assert read() == "step 30 loss 0.1 l1 0.03333 comp 0.06667"
        page.run("document.querySelector('.plot input').focus()")
        page.press("ArrowLeft")
        assert read() == "step 29 loss 0.1034 l1 0.03448 comp 0.06897"
        assert page.run("document.activeElement.getAttribute('aria-valuetext')").startswith("step 29, loss 0.1034")
        for value in (0, 0.25, 0.123456, 123.456, 1234.6, -2.5, 1.5e-4, 1e-3, 1e-8, 12_345_678, None):
            assert page.run(f"number({json.dumps(value)})") == number(value)
        assert page.complaints == []


@needs_browser
def test_the_table_sorts(opened):
    with opened() as page:

        def column(at):
            return page.run(
                f"[...document.querySelectorAll('.scores tbody tr')].map(row => row.cells[{at}].textContent)"
            )

        for order in (["2.50", "1.50"], ["1.50", "2.50"]):
            page.run("document.querySelectorAll('.scores button')[2].click()")
            assert column(2) == order
        page.run("document.querySelectorAll('.scores button')[0].click()")
        assert column(0) == [HOSTILE, "leaf"]
        assert page.complaints == []


@needs_browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 1280)])
def test_the_page_fits_the_window_and_the_scheme(opened, scheme, width):
    with opened(scheme=scheme, width=width) as page:
        assert page.run("document.documentElement.scrollWidth") <= width
        corner = window(page)[:10, :10].mean()
        assert corner == 255 if scheme == "light" else corner < 40
