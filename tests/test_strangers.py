"""Files as strangers have them: each is read right, or refused in a line that names it, and nothing is lost."""

import os
import socket
import stat
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from stand_in import StandIn

from dptmat.data.cases import list_images, pair
from dptmat.data.image_io import read_alpha, read_image, read_size, read_trimap
from dptmat.errors import UserError
from dptmat.files import write_output, write_whole
from dptmat.models import create_model
from dptmat.weights.initialize import initialize
from dptmat.weights.load import load_network


def save(path, array):
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("read", [read_alpha, read_image])
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.eye(8, dtype=np.uint8), "has no value above 1; white is 255 in 8 bits"),
        (np.full((8, 8), 200, np.uint16), "16 bits or more per pixel and no value above 200, where white is 65535"),
        (np.full((8, 8), 255, np.int32), "16 bits or more per pixel and no value above 255"),
    ],
)
def test_values_in_the_wrong_range_are_refused(tmp_path, read, array, message):
    path = save(tmp_path / "a.tif", array)
    with pytest.raises(UserError, match=f"a.tif .*{message}"):
        read(path)


def test_dark_images_and_empty_mattes_are_none_of_these(tmp_path):
    assert read_alpha(save(tmp_path / "a.png", np.zeros((4, 4), np.uint8))).max() == 0
    assert read_alpha(save(tmp_path / "b.png", np.full((4, 4), 2, np.uint8))).max() == 2
    assert read_alpha(save(tmp_path / "c.png", np.eye(4, dtype=bool))).max() == 255  # one bit
    assert read_image(save(tmp_path / "d.png", np.zeros((4, 4), np.uint16))).max() == 0
    assert read_alpha(save(tmp_path / "e.png", np.full((4, 4), 257, np.uint16))).max() == 1


def test_no_program_is_started_for_an_image(tmp_path, monkeypatch):
    """Pillow hands PostScript to a program of the system, whatever the file's name."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(UserError, match="a.png is not an image that can be read"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_image, read_alpha, read_trimap, read_size])
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_no_file_of_its_own_is_refused_without_a_wait(tmp_path, monkeypatch, read, kind):
    path = tmp_path / "a.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path = tmp_path / "s"
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        socket.socket(socket.AF_UNIX).bind("s")
    with pytest.raises(UserError, match="is a pipe, a device or a socket"):
        read(path)


def test_litter_among_images_is_no_partner(tmp_path):
    for folder in ("fg", "alpha"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
        (tmp_path / folder / "._a.png").touch()
    (tmp_path / "fg/._b.png").touch()
    assert list(list_images("fg", tmp_path / "fg")) == ["a"]
    assert [case.name for case in pair(fg=tmp_path / "fg", alpha=tmp_path / "alpha")] == ["a"]


def test_an_output_that_is_a_link_is_followed(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_output(tmp_path / "link", lambda file: file.write(b"new"))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) & 0o077 == 0o066 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_output_that_is_a_pipe_is_written_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_output(tmp_path / "pipe", lambda file: file.write(b"list"))
    reader.join()
    assert got == [b"list"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(OSError, match="directory"):
        write_output(tmp_path, lambda file: file.write(b"x"))


def test_a_link_planted_where_a_run_writes_is_not_followed(tmp_path):
    """Neither under the name itself nor under that of a temporary file."""
    (tmp_path / "mine").write_text("precious")
    for name in ("config.toml", "config.toml.part"):
        (tmp_path / name).symlink_to("mine")
    write_whole(tmp_path / "config.toml", lambda file: file.write(b"new"))
    assert (tmp_path / "mine").read_text() == "precious"
    assert (tmp_path / "config.toml").read_text() == "new"


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = create_model("unet_resnet10t")
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["encoder.backbone.conv1.0.weight"][0, 0, 0, 0] = torch.inf
    torch.save({"model": state, "config": {"model": "unet_resnet10t"}}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="w.pt .*1 tensors hold numbers that are not finite: encoder.backbone.conv1.0"):
        load_network(tmp_path / "w.pt")
    with pytest.raises(UserError, match="w.pt .* holds numbers that are not finite in encoder.backbone.conv1.0"):
        initialize(network, "unet_resnet10t", str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["index", "--data", ""], "--data must be the path of a file or folder; got ''"),
        (["predict", "--checkpoint", "", "--image", "a", "--out", "b"], "--checkpoint must be the path"),
        (["convert", "w.pt", "w.pt"], "w.pt is what is read; give another name"),
        (["convert", "w.pt", "./w.pt"], "./w.pt is what is read; give another name"),
        (["report", "--run", ".", "--out", "log.jsonl"], "--out log.jsonl is there already and no page"),
        (["index", "--data", "bad.txt", "--out", "bad.txt"], "none of 2 lines looked at is the path of a file"),
        (
            ["index", "--data", "damaged", "--out", "good.txt"],
            "none of the 1 photographs of --data damaged can",
        ),
        (["report", "--run", "\x1b[2Jno", "--out", "p.html"], "\\x1b[2Jno is no folder"),
    ],
)
def test_what_would_lose_something_is_refused_in_one_line(dptmat, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    kept = {"w.pt": "weights", "log.jsonl": "{}\n", "bad.txt": "gone/a.jpg\ngone/b.jpg\n"}
    for name, text in kept.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/a.jpg").write_text("text")
    status, _, error = dptmat(*words)
    assert status == 2
    assert message in error
    assert error.strip().count("\n") == 0
    assert {name: (tmp_path / name).read_text() for name in kept} == kept
    assert not (tmp_path / "good.txt").exists()


def test_a_tilde_is_the_home_folder_in_every_command(dptmat, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos/a.jpg"), np.full((8, 8, 3), 90, np.uint8))
    status, output, _ = dptmat("index", "--data", "~/photos", "--out", "~/list.txt")
    assert (status, output) == (0, f"{tmp_path}/list.txt: 1 photographs, 0 left out\n")


@pytest.mark.slow
def test_where_no_folder_can_be_written_loops_are_compiled_without_a_cache(tmp_path):
    """As in a container of read-only files; root may write anywhere, so that numba is told so."""
    code = (
        "import numba.core.caching as caching\n"
        "for locator in caching.CacheImpl._locator_classes:\n"
        "    locator.from_function = classmethod(lambda cls, function, file: None)\n"
        "import logging, torch, dptmat\n"
        "print(dptmat.random_trimap(torch.arange(2), 0, (14, 14)).sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert done.stderr.count("no folder for compiled loops can be used") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "trouble",
    ["full", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("damaged", "gone", "unreadable"))],
)
def test_a_cache_of_compiled_loops_that_fails_at_any_moment_ends_nothing(tmp_path, trouble):
    """Where no file may grow, the system refuses what is written, as on a full disk."""
    code = (
        "import os, resource, shutil, sys, torch, dptmat, dptmat.kernels\n"
        "if sys.argv[1] == 'full': resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "if sys.argv[1] == 'gone': shutil.rmtree('cache'); open('cache', 'w').close()\n"
        "print(dptmat.random_trimap(torch.arange(2), 0, (14, 14)).sum().item())"
    )

    def start(what):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", code, what], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout), done.stderr

    said = "no folder for compiled loops can be used"
    if trouble in ("full", "gone"):
        result, message = start(trouble)
        assert message.count(said) == 1
    else:
        result, message = start("")
        assert said not in message
        for path in (tmp_path / "cache").rglob("*.nbi" if trouble == "unreadable" else "*.nb[ic]"):
            path.write_bytes(path.read_bytes()[:40] + b"?")
            if trouble == "unreadable":
                path.unlink()
                path.mkdir()
        again, message = start("")
        assert again == result
        assert message.count(said) == 1
    assert result == 2 * 49 * (3 * 1 + 1 * 2)  # of four cells three are unknown, and one is foreground


def test_pillow_does_not_write_over_a_progress_bar(dptmat, tmp_path, monkeypatch, recwarn):
    """It warns of odd EXIF, of odd TIFF and of many pixels, none of which a user can mend."""
    monkeypatch.setattr("dptmat.weights.load.load_network", lambda path, device: (StandIn(in_channels=3), {}))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # warns beyond, refuses from twice as many
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.jpg", exif=exif.tobytes()[:-3] + b"\xff\xff\xff")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "b.tif", exif=exif)
    content = (tmp_path / "b.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(content.replace(b"\x1a\x01\x05\0\1\0\0\0", b"\x1a\x01\x05\0\xff\xff\0\0"))
    given = ["--image", str(tmp_path), "--out", str(tmp_path / "out")]
    status, _, error = dptmat("predict", "--checkpoint", "x.pt", *given)
    assert status == 0, error
    assert not [str(warning.message) for warning in recwarn if "PIL" in warning.filename]
