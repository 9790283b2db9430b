"""The page for the browser: what it computes, what a person does with it, and that nothing gets out of its folder."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
import torch
from mattes import shades, soft_disc
from PIL import Image

from dptmat.app import steps
from dptmat.data.image_io import LEVELS
from dptmat.errors import UserError
from dptmat.models import create_model

NETWORK = "unet_resnet10t"
SIZE = 96, 144  # height and width of the photographs, in pixels


def test_strokes_are_the_states_of_their_colours():
    """Against a look at each pixel: the nearest colour, of what is at least half opaque, over what was loaded."""
    generator = np.random.default_rng(0)
    trimap = generator.integers(0, 3, (14, 21), dtype=np.uint8)
    strokes = generator.integers(0, 256, (14, 21, 4), dtype=np.uint8)
    strokes[3:9, 4:9, :3] = [(220, 200, 10)]  # nearly that of unknown
    expected = trimap.copy()
    for y, x in np.ndindex(trimap.shape):
        *color, opacity = map(int, strokes[y, x])
        brushes = (40, 80, 220), (250, 190, 0), (20, 170, 60)
        far = [sum((one - other) ** 2 for one, other in zip(color, brush, strict=True)) for brush in brushes]
        if opacity >= 128:
            expected[y, x] = far.index(min(far))
    np.testing.assert_array_equal(steps.paint(trimap, strokes), expected)
    assert (expected[3:9, 4:9][strokes[3:9, 4:9, 3] >= 128] == 1).all()


def test_strokes_are_enlarged_to_the_photograph_pixel_by_pixel():
    strokes = np.zeros((5, 7, 4), np.uint8)
    strokes[1, 2] = (20, 170, 60, 255)
    strokes[4, 6] = (40, 80, 220, 255)
    expected = np.ones((5, 7), np.uint8)
    expected[1, 2], expected[4, 6] = 2, 0
    painted = steps.paint(np.ones((15, 21), np.uint8), strokes)
    np.testing.assert_array_equal(painted, np.kron(expected, np.ones((3, 3), np.uint8)))


def test_nothing_painted_leaves_the_trimap():
    trimap = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    assert steps.paint(trimap, None) is trimap
    np.testing.assert_array_equal(steps.paint(trimap, np.zeros((9, 9, 4), np.uint8)), trimap)


@pytest.mark.parametrize(("value", "message"), [(1, "Nothing is marked yet"), (0, "Everything is marked")])
def test_a_trimap_that_says_nothing_or_all_is_refused(value, message):
    with pytest.raises(UserError, match=message):
        steps.require_marks(np.full((3, 4), value, np.uint8))


def test_a_composite_is_rounded_to_the_nearest_level():
    alpha, color = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(0, 256, 5, dtype=np.uint8))
    cutout = np.dstack([color, color[::-1], 255 - color, alpha])
    picture = np.random.default_rng(1).integers(0, 256, (52, 256, 3), np.uint8)
    for background in (np.array([0, 128, 255], np.uint8), picture):
        share = alpha[..., None] / 255.0
        expected = np.rint(share * cutout[..., :3] + (1 - share) * background)
        np.testing.assert_array_equal(steps.over(cutout, background), expected)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (50, 50), (1, 99)])
def test_a_background_fills_the_photograph_and_keeps_its_proportions(shape):
    picture = np.zeros((30, 90, 3), np.uint8)
    picture[:, 45:] = 200  # two halves: the border between them stays in the middle
    filled = steps.fill(picture, shape)
    assert filled.shape == (*shape, 3)
    assert filled[0, 0, 0] == 0
    assert filled[-1, -1, 0] == 200
    assert abs(int((filled[0, :, 0] > 100).sum()) - shape[1] / 2) <= 1


def test_a_mask_becomes_the_trimap_of_the_command(dptmat, tmp_path):
    mask = (soft_disc(*SIZE) >= 128).astype(np.uint8) * 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    status, _, told = dptmat("trimap", "--mask", tmp_path / "mask.png", "--width", "4%", "--out", tmp_path / "out")
    assert status == 0, told
    expected = cv2.imread(str(tmp_path / "out/mask.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(LEVELS[steps.load_trimap(tmp_path / "mask.png", SIZE, 4.0)], expected)
    with pytest.raises(UserError, match="leaves nothing unknown, as a mask does"):
        steps.load_trimap(tmp_path / "mask.png", SIZE)


@pytest.mark.parametrize(
    ("content", "width", "message"),
    [
        (soft_disc(*SIZE), None, "holds .* expected 0, 128 and 255"),
        (np.full(SIZE, 128, np.uint8), None, "leaves nothing known"),
        (np.full(SIZE, 255, np.uint8), 3.0, "has no outline"),
        (soft_disc(*SIZE), 90.0, "leaves nothing known; take a narrower band"),
        (np.full((50, 50), 128, np.uint8), None, "sizes differ: photograph 144 x 96, trimap 50 x 50"),
    ],
)
def test_a_trimap_that_cannot_be_used_is_refused(tmp_path, content, width, message):
    cv2.imwrite(str(tmp_path / "x.png"), content)
    with pytest.raises(UserError, match=message):
        steps.load_trimap(tmp_path / "x.png", SIZE, width)


def test_a_photograph_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (9000, 8000)).save(tmp_path / "wall.png")
    with pytest.raises(UserError, match="wall.png has 9000 x 8000 pixels; the page takes up to 64 million"):
        steps.read_photograph(tmp_path / "wall.png")


def test_what_is_shown_is_small_and_keeps_its_proportions():
    assert steps.shrink(np.zeros((6144, 8192), np.uint8)).shape == (960, 1280)
    assert steps.shrink(np.zeros((8000, 3, 3), np.uint8)).shape == (1280, 1, 3)
    assert steps.shrink(np.zeros((70, 30, 3), np.uint8)).shape == (70, 30, 3)


def test_colours_are_read_as_browsers_write_them():
    page = pytest.importorskip("dptmat.app.page", reason="needs gradio: pip install 'dptmat[app]'")
    for written in ("#3a7d44", "#3A7D44ff", "rgb(58, 125, 68)", "rgba(58.2, 124.9, 68, 0.5)"):
        assert page.read_color(written).tolist() == [58, 125, 68]
    assert page.read_color("").tolist() == [255, 255, 255]


def test_without_the_extra_one_line_says_what_to_install(dptmat, monkeypatch):
    monkeypatch.setattr("dptmat.cli.app.find_spec", lambda name: None)
    told = "dptmat: the page needs the package gradio; install it: pip install 'dptmat[app]'\n"
    assert dptmat("app", "--checkpoint", "net.pt") == (2, "", told)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--checkpoint", "{tmp}/none.pt"], "{tmp}/none.pt cannot be read"),
        (["--checkpoint", "a", "--checkpoint", "b", "--checkpoint", "c"], "--checkpoint must be given once, or twice"),
        (["--checkpoint", "a", "--port", "{port}"], "--port {port}: Address already in use; give another --port, or 0"),
        (["--checkpoint", "a", "--port", "99999"], "'--port': 99999 is not in the range"),
        (["--checkpoint", "a", "--tile", "100"], "--tile must be"),
        (["--checkpoint", "a", "--amp", "fp16", "--device", "cpu"], "--amp fp16 needs a GPU"),
        ([], "Missing option '--checkpoint'"),
    ],
)
def test_bad_input_gives_one_line_and_status_2(dptmat, tmp_path, words, message):
    pytest.importorskip("gradio", reason="needs gradio: pip install 'dptmat[app]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {"tmp": tmp_path, "port": taken.getsockname()[1]}
        status, output, error = dptmat("app", *(word.format(**names) for word in words))
    assert (status, output) == (2, "")
    assert message.format(**names) in error
    assert error.count("\n") == 1


class Served:
    """The command in a process of its own, with two networks, and a folder that all its temporary files go to."""

    def __init__(self, folder):
        for number in (1, 2):
            torch.manual_seed(number)
            content = {"model": create_model(NETWORK).state_dict(), "config": {"model": NETWORK, "trimap": True}}
            torch.save(content, folder / f"net{number}.pt")
        self.folder, self.temporary = folder, folder / "temporary"
        self.temporary.mkdir()
        words = ["app", "--port", "0", "--checkpoint", folder / "net1.pt", "--checkpoint", folder / "net2.pt"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dptmat", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=folder, env={**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.address = line.split()[0]
        assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+  \(Ctrl-C ends it\)\n", line)

    def ask(self, path, data=None, headers=()):
        """Ask for an address: (status, headers, content)."""
        request = urllib.request.Request(self.address + path, data, dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def upload(self, name, content):
        """Upload a file as the page does: (status, answer)."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--x--\r\n"
        status, _, answer = self.ask("/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=x"})
        return status, answer

    def call(self, handler, data):
        """Call a handler of the page by its number: the last message on it."""
        self.begin(handler, data)
        _, _, messages = self.ask("/gradio_api/queue/data?session_hash=test")
        return json.loads([line for line in messages.decode().splitlines() if "process_completed" in line][-1][6:])

    def begin(self, handler, data):
        """Call a handler, and do not wait for it."""
        body = json.dumps({"data": data, "fn_index": handler, "session_hash": "test"}).encode()
        status, _, answer = self.ask("/gradio_api/queue/join", body, {"Content-Type": "application/json"})
        assert status == 200, answer

    def end(self, number):
        """End it by a signal: what it said on standard error."""
        self.process.send_signal(number)
        _, error = self.process.communicate(timeout=15)
        return error


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The page, which no test ends; nothing is left of it."""
    pytest.importorskip("gradio", reason="needs gradio: pip install 'dptmat[app]'")
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    assert served.process.poll() is None
    served.end(signal.SIGTERM)
    assert served.process.returncode == 128 + signal.SIGTERM
    assert not list(served.temporary.glob("dptmat-app-*"))


@pytest.mark.slow
def test_an_interrupt_ends_it_while_it_computes_and_leaves_nothing(tmp_path):
    pytest.importorskip("gradio", reason="needs gradio: pip install 'dptmat[app]'")
    served = Served(tmp_path)
    files = []
    for name, image in (("cat.png", shades(3000, 4000, 0)), ("trimap.png", np.full((3000, 4000), 128, np.uint8))):
        image[0] = 0
        status, answer = served.upload(name, cv2.imencode(".png", image)[1].tobytes())
        assert status == 200
        (path,) = json.loads(answer)
        assert os.path.realpath(path).startswith(os.path.realpath(served.temporary) + "/dptmat-app-")
        files.append({"path": path, "url": None, "orig_name": name, "meta": {"_type": "gradio.FileData"}})
    assert served.call(0, [None, files[0]])["success"]
    assert served.call(2, [None, files[1], "Trimap", 3, None])["success"]
    served.begin(11, [None, None])
    time.sleep(3)
    started = time.monotonic()
    assert served.end(signal.SIGINT).strip() == "dptmat: interrupted"
    assert time.monotonic() - started < 10
    assert served.process.returncode == 130
    assert not list(served.temporary.glob("dptmat-app-*"))


@pytest.mark.slow
def test_no_file_from_outside_its_folder_is_given_away(served):
    files = "/etc/passwd", f"{served.folder}/net1.pt", f"{served.temporary}/../net1.pt", "net1.pt", sys.executable
    for path in (*files, "http://127.0.0.1:9/x", "https://example.com/"):
        for route in ("/gradio_api/file=", "/gradio_api/file/", "/file="):
            assert served.ask(route + path)[0] in (400, 403, 404), (route, path)
    assert served.ask("/gradio_api/proxy=https://example.com/")[0] != 200


@pytest.mark.slow
@pytest.mark.parametrize("where", ["outside", "web"])
def test_no_file_that_was_not_uploaded_is_taken_for_a_photograph(served, where):
    cv2.imwrite(str(served.folder / "secret.png"), shades(*SIZE, 3))
    path = str(served.folder / "secret.png") if where == "outside" else "http://127.0.0.1:9/secret.png"
    photograph = {"path": path, "url": None, "orig_name": "cat.png", "meta": {"_type": "gradio.FileData"}}
    message = served.call(0, [None, photograph])
    assert message["success"] is False


@pytest.mark.slow
def test_no_other_web_site_reaches_it(served):
    status, headers, _ = served.ask("/")
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'self'; ")
    assert served.ask("/", headers={"Host": "example.com"})[0] == 400
    port = served.address.rpartition(":")[2]
    assert served.ask("/", headers={"Host": f"localhost:{port}"})[0] == 200
    for origin in ("https://example.com", "http://127.0.0.1.example.com", "null"):
        assert served.ask("/gradio_api/upload", b"", {"Origin": origin})[0] == 403
    with pytest.raises(OSError, match="refused"):  # another address of this machine
        socket.create_connection(("127.0.0.2", int(port)), timeout=5)


@pytest.mark.slow
def test_uploads_are_bounded(served):
    status, _ = served.upload("wall.png", bytes(106_000_000))
    assert status == 413


class Visitor:
    """A person at the page, with files in a folder of their own."""

    def __init__(self, browser, served, folder):
        self._context = browser.new_context(viewport={"width": 1280, "height": 1400}, accept_downloads=True)
        self.page, self.folder, self.requests, self.errors = self._context.new_page(), folder, [], []
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self._address = served.address + "/"
        self.page.goto(self._address)
        self.page.locator("#go").wait_for()

    def load(self, place, name):
        self.page.set_input_files(f"#{place} input[type=file]", self.folder / name)

    def load_photograph(self, name):
        stem = name.partition(".")[0]
        self.load("photograph", name)
        self.page.locator(f"#photograph img[src*='/{stem}_shown.png']").wait_for()
        self.page.locator("#editor canvas").first.wait_for()

    def load_trimap(self, name):
        if not self.page.locator("#trimap").is_visible():
            self.page.get_by_text("Or load a trimap or a mask").click()
        self.load("trimap", name)

    def choose(self, place, label):
        self.page.locator(f"#{place}").get_by_label(label).check()

    def stroke(self, state, *points):
        """Paint a line through points, as shares of the photograph's width and height, which fill the canvas."""
        self.choose("brush", state)
        self.page.wait_for_timeout(1500)  # until the brush has its colour
        box = self.page.locator("#editor canvas").first.bounding_box()
        scale = min((box["width"] - 60) / SIZE[1], (box["height"] - 60) / SIZE[0])
        width, height = SIZE[1] * scale, SIZE[0] * scale
        x0, y0 = box["x"] + (box["width"] - width) / 2, box["y"] + (box["height"] - height) / 2
        mouse = self.page.mouse
        for number, (x, y) in enumerate(points):
            mouse.move(x0 + x * width, y0 + y * height, steps=8)
            if not number:
                mouse.down()
        mouse.up()
        self.page.wait_for_timeout(500)

    def says(self, text):
        self.page.get_by_test_id("toast-body").get_by_text(text).first.wait_for()

    def cut_out(self):
        self.page.locator("#go").click()
        self.page.locator("#go").get_by_text("Computing").wait_for()
        self.page.locator("#go").get_by_text("Cut out").wait_for()

    def download(self, kind):
        with self.page.expect_download() as download:
            self.page.locator(f"#download-{kind}").click()
        path = self.folder / f"{kind}.png"
        download.value.save_as(path)
        return download.value.suggested_filename, cv2.imread(str(path), cv2.IMREAD_UNCHANGED)

    def leave(self):
        self._context.close()
        assert self.errors == []
        assert [url for url in self.requests if not url.startswith(("data:", "blob:", self._address))] == []


@pytest.fixture
def visit(browser, served, tmp_path):
    """Function that opens the page; afterwards it has asked nobody else for anything."""
    visitors = []

    def visit():
        folder = tmp_path / str(len(visitors))
        folder.mkdir()
        visitors.append(Visitor(browser, served, folder))
        return visitors[-1]

    yield visit
    for visitor in visitors:
        visitor.leave()


def write_sample(folder, stem, kind=0):
    """A photograph STEM.png, its trimap STEM_trimap.png and its mask STEM_mask.png."""
    alpha = soft_disc(*SIZE)
    trimap = np.select([alpha == 0, alpha == 255], [0, 255], 128).astype(np.uint8)
    cv2.imwrite(str(folder / f"{stem}.png"), shades(*SIZE, kind))
    cv2.imwrite(str(folder / f"{stem}_trimap.png"), trimap)
    cv2.imwrite(str(folder / f"{stem}_mask.png"), (alpha >= 128).astype(np.uint8) * 255)


@pytest.mark.slow
def test_a_person_gets_what_predict_gives(visit, served, dptmat):
    visitor = visit()
    write_sample(visitor.folder, "cat")
    visitor.load_photograph("cat.png")
    visitor.load_trimap("cat_trimap.png")
    visitor.page.wait_for_timeout(2000)
    visitor.cut_out()
    assert visitor.page.locator("#slider img").count() == 2
    for number in (1, 2):
        out = visitor.folder / f"out{number}"
        status, _, told = dptmat(
            "predict", "--checkpoint", served.folder / f"net{number}.pt", "--image", visitor.folder / "cat.png",
            "--trimap", visitor.folder / "cat_trimap.png", "--cutout", "--out", out,
        )  # fmt: skip
        assert status == 0, told
        visitor.choose("which", f"{number}: {NETWORK}, net{number}.pt")
        visitor.page.locator("#shown img[src*='cat_shown_composite']").wait_for()
        visitor.page.wait_for_timeout(2000)
        alpha, cutout = (cv2.imread(str(out / name), cv2.IMREAD_UNCHANGED) for name in ("cat.png", "cutout/cat.png"))
        downloads = {kind: visitor.download(kind) for kind in ("alpha", "cutout", "composite")}
        assert [name for name, _ in downloads.values()] == [f"cat_{number}_{kind}.png" for kind in downloads]
        np.testing.assert_array_equal(downloads["alpha"][1], alpha)
        np.testing.assert_array_equal(downloads["cutout"][1][..., 3], alpha)
        # pymatting's threads read what others write: colours may differ by a level from one call to the next.
        np.testing.assert_allclose(downloads["cutout"][1], cutout, atol=1)
        cutout = downloads["cutout"][1]
        share, color = cutout[..., 3:] / 255.0, np.array([0x44, 0x7D, 0x3A])  # as OpenCV has it, blue first
        expected = np.rint(share * cutout[..., :3] + (1 - share) * color)
        np.testing.assert_array_equal(downloads["composite"][1], expected)


@pytest.mark.slow
def test_strokes_of_the_mouse_are_marks_and_go_with_their_photograph(visit):
    visitor = visit()
    write_sample(visitor.folder, "cat")
    visitor.page.locator("#go").click()
    visitor.says("Load a photograph first.")
    visitor.load_photograph("cat.png")
    visitor.page.locator("#go").click()
    visitor.says("Nothing is marked yet")
    visitor.stroke("Foreground", (0.4, 0.5), (0.6, 0.5))
    visitor.stroke("Background", (0.2, 0.2), (0.8, 0.2))
    visitor.cut_out()
    _, alpha = visitor.download("alpha")
    height, width = SIZE
    assert alpha.shape == SIZE
    assert (alpha[height // 2, round(0.4 * width) : round(0.6 * width)] == 255).all()
    assert (alpha[round(0.2 * height), round(0.3 * width) : round(0.75 * width)] == 0).all()
    assert ((alpha > 0) & (alpha < 255)).any()
    turned = Image.fromarray(shades(60, 80, 2))  # lies on its side, as phones write it
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(visitor.folder / "phone.jpg", exif=exif)
    visitor.load_photograph("phone.jpg")
    shown = visitor.page.locator("#photograph img")
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [60, 80]
    assert not visitor.page.locator("#shown").is_visible()
    visitor.page.locator("#go").click()
    visitor.says("Nothing is marked yet")


@pytest.mark.exhaustive
def test_files_that_cannot_be_used_are_named_and_the_page_goes_on(visit):
    visitor = visit()
    write_sample(visitor.folder, "cat")
    (visitor.folder / "text.jpg").write_text("text, and no picture")
    (visitor.folder / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    Image.new("1", (9000, 8000)).save(visitor.folder / "wall.png")
    cv2.imwrite(str(visitor.folder / "small.png"), np.full((50, 50), 128, np.uint8))
    for name, told in (
        ("text.jpg", "text.jpg is not an image that can be read: it is text"),
        ("phone.jpg", "phone.jpg is not an image that can be read: it is "),
        ("wall.png", "wall.png has 9000 x 8000 pixels; the page takes up to 64 million"),
    ):
        visitor.load("photograph", name)
        visitor.says(told)
        visitor.page.locator("#photograph img").wait_for(state="detached")
    visitor.load_photograph("cat.png")
    visitor.load_trimap("small.png")
    visitor.says("small.png: sizes differ: photograph 144 x 96, trimap 50 x 50 pixels")
    visitor.page.locator("#trimap").get_by_label("Clear").click()
    visitor.load_trimap("cat_mask.png")
    visitor.says("cat_mask.png leaves nothing unknown, as a mask does")
    assert not visitor.page.locator("#width").is_visible()
    visitor.choose("kind", "Rough mask")
    visitor.page.locator("#width").wait_for()
    visitor.page.locator("#editor canvas").first.wait_for()
    visitor.cut_out()
    _, alpha = visitor.download("alpha")
    trimap = steps.load_trimap(visitor.folder / "cat_mask.png", SIZE, 3.0)
    assert (alpha[trimap == 2] == 255).all()
    assert (alpha[trimap == 0] == 0).all()
    assert (alpha[trimap == 1] < 255).any()
    visitor.page.reload()
    visitor.page.get_by_text("First load a photograph.").wait_for()
    assert visitor.page.locator("#photograph img").count() == 0


@pytest.mark.exhaustive
def test_two_visitors_at_the_same_time_see_their_own_pictures(visit):
    visitors = {"cat": visit(), "dog": visit()}
    for kind, (stem, visitor) in enumerate(visitors.items()):
        write_sample(visitor.folder, stem, kind)
        visitor.load_photograph(f"{stem}.png")
        visitor.load_trimap(f"{stem}_trimap.png")
    for visitor in visitors.values():
        visitor.page.wait_for_timeout(2000)
        visitor.page.locator("#go").click()
    for kind, (stem, visitor) in enumerate(visitors.items()):
        visitor.page.locator(f"#shown img[src*='{stem}_shown_composite']").wait_for()
        name, cutout = visitor.download("cutout")
        assert name == f"{stem}_1_cutout.png"
        opaque = cutout[..., 3] == 255
        assert opaque.any()
        np.testing.assert_array_equal(cutout[opaque][:, :3], shades(*SIZE, kind)[opaque])
        other = next(each for each in visitors if each != stem)
        assert not any(f"/{other}" in url for url in visitor.requests)
