"""Every option that takes a file, crossed with everything that can be wrong with one.

Whatever it is, the command ends with a status and a line that names the file; it shows no traceback, changes nothing
of the user's and leaves nothing half-written. A new option that takes files joins ``COMMANDS``.
"""

import hashlib
import logging
import os
import shutil
import threading

import cv2
import numpy as np
import pytest
import torch
from mattes import shades, soft_disc
from stand_in import StandIn

from dptmat.data.image_io import LEVELS, write_png
from dptmat.models import create_model

pytestmark = pytest.mark.usefixtures("freed")
NETWORK = "unet_resnet10t"
TRAINING = [
    "--model", NETWORK, "--size", "64", "--batch-size", "2", "--steps", "1", "--device", "cpu", "--threads", "1",
    "--quarantine", "bad.txt", "--config", "config.toml", "--init", "net.pt",
]  # fmt: skip
# Each one works on the files of `bench`. What follows an option that is named in INPUTS is read.
COMMANDS = {
    "pretrain": [
        "pretrain", "--data", "photos", "--val-image", "image", "--val-trimap", "trimap", "--val-alpha", "alpha",
        "--out", "run", *TRAINING,
    ],
    "pretrain by a list": ["pretrain", "--data", "photos.txt", "--out", "run", *TRAINING],
    "finetune": [
        "finetune", "--fg", "fg", "--alpha", "matte", "--bg", "photos", "--val-image", "image", "--val-trimap",
        "trimap", "--val-alpha", "alpha", "--out", "run", *TRAINING,
    ],
    "finetune cut-outs": ["finetune", "--fg", "cutouts", "--bg", "photos", "--out", "run", *TRAINING],
    "finetune a set": ["finetune", "--data", "known", "--bg", "photos", "--out", "run", *TRAINING],
    "check": ["check", "--fg", "fg", "--alpha", "matte", "--bg", "photos", "--size", "64", "--out", "look.png"],
    "check cut-outs": ["check", "--fg", "cutouts", "--size", "64", "--out", "look.png"],
    "check a set": ["check", "--data", "known", "--size", "64"],
    "cutout": ["cutout", "--image", "image", "--alpha", "alpha", "--out", "out"],
    "cutout of a set": ["cutout", "--data", "known", "--out", "out"],
    "preview": ["preview", "--data", "photos", "--out", "preview.png", "--size", "64"],
    "index": ["index", "--data", "photos", "--out", "good.txt"],
    "index of a list": ["index", "--data", "photos.txt", "--out", "good.txt"],
    "stats": ["stats", "--data", "photos", "--out", "stats.png"],
    "pack": ["pack", "--data", "photos", "--out", "packed", "--short-side", "64", "--workers", "1"],
    "pack a list": ["pack", "--data", "photos.txt", "--out", "packed", "--short-side", "64", "--workers", "1"],
    "predict": ["predict", "--checkpoint", "net.pt", "--image", "image", "--trimap", "trimap", "--out", "out"],
    "predict by a list": [
        "predict", "--checkpoint", "net.pt", "--image", "images.txt", "--trimap", "trimap", "--out", "out",
    ],
    "predict one": [
        "predict", "--checkpoint", "net.pt", "--image", "image/0.png", "--trimap", "trimap/0.png", "--out", "out",
    ],
    "evaluate": [
        "evaluate", "--checkpoint", "net.pt", "--image", "image", "--trimap", "trimap", "--alpha", "alpha", "--out",
        "out",
    ],
    "evaluate files": [
        "evaluate", "--predictions", "predictions", "--trimap", "trimap", "--alpha", "alpha", "--out", "out",
    ],
    "evaluate by groups": ["evaluate", "--predictions", "predictions", "--alpha", "alpha", "--region", "whole",
        "--groups", "groups.csv", "--out", "out",
    ],
    "evaluate a set": ["evaluate", "--checkpoint", "net.pt", "--data", "set", "--out", "out"],
    "compose": [
        "compose", "--fg", "fg", "--alpha", "matte", "--bg", "photos", "--each", "2", "--fg-names", "fg.txt",
        "--bg-names", "bg.txt", "--out", "out",
    ],
    "compose cut-outs": ["compose", "--fg", "cutouts", "--bg", "photos", "--each", "2", "--out", "out"],
    "trimap": [
        "trimap", "--alpha", "alpha", "--width", "5%", "--out", "out", "--sheet", "sheet.png", "--image", "image",
    ],
    "trimap of masks": ["trimap", "--mask", "masks.txt", "--inward", "2", "--outward", "3.5", "--out", "out"],
    "convert": ["convert", "net.pt", "new.pt"],
    "push": ["push", "net.pt", "me/net", "--license", "mit", "--out", "shared"],
    "report": ["report", "--run", "old", "--images", "image", "--out", "page.html"],
}  # fmt: skip
INPUTS = (
    "--data", "--fg", "--alpha", "--bg", "--val-image", "--val-trimap", "--val-alpha", "--image", "--trimap",
    "--predictions", "--checkpoint", "--init", "--quarantine", "--config", "--fg-names", "--bg-names", "--run",
    "--images", "--mask", "convert", "push", "--groups",
)  # fmt: skip
OUTPUTS = ("--out", "net.pt")  # the latter of `convert`


def inputs_of(words):
    """The names of what a command reads, in order."""
    return [word for option, word in zip(words, words[1:], strict=False) if option in INPUTS]


def folders_of(words):
    return [
        name
        for name in inputs_of(words)
        if "." not in name and name not in ("old", "set", "known") and words[0] != "report"
    ]


def crossed(slots, faults):
    """Parametrize a test by all pairs; a usual run has one in 29, of other faults and other slots."""
    pairs = [(*slot, fault) for slot in slots for fault in faults]
    return pytest.mark.parametrize(
        ("command", "name", "fault"),
        [
            pytest.param(*pair, marks=pytest.mark.exhaustive if number % 29 else (), id=":".join(map(str, pair)))
            for number, pair in enumerate(pairs)
        ],
    )


SLOTS = [(command, name) for command, words in COMMANDS.items() for name in inputs_of(words)]
FOLDERS = [(command, name) for command, words in COMMANDS.items() for name in folders_of(words)]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder in which each of COMMANDS works."""
    here = tmp_path_factory.mktemp("template")
    for folder in ("photos", "fg", "matte", "image", "trimap", "alpha", "predictions", "set/merged", "set/trimaps"):
        (here / folder).mkdir(parents=True)
    (here / "set/alpha_copy").mkdir()
    for folder in ("cutouts", "known/train/cutout", "known/train/original", "known/train/mask"):
        (here / folder).mkdir(parents=True)
    for i in range(6):
        cv2.imwrite(str(here / f"photos/{i}.jpg"), shades(80 + i, 90, i))
    for i in range(2):
        alpha = soft_disc(72, 80 + i)
        trimap = LEVELS[np.where(alpha == 0, 0, np.where(alpha == 255, 2, 1))]
        for folder, image in (
            ("fg", shades(72, 80 + i, i)), ("matte", alpha), ("image", shades(72, 80 + i, i + 9)), ("trimap", trimap),
            ("alpha", alpha), ("predictions", alpha), ("set/merged", shades(72, 80 + i, 5)), ("set/trimaps", trimap),
            ("set/alpha_copy", alpha), ("known/train/original", shades(72, 80 + i, 7)), ("known/train/mask", alpha),
            *[(into, np.dstack([shades(72, 80 + i, 30 + i), alpha])) for into in ("cutouts", "known/train/cutout")],
        ):  # fmt: skip
            write_png(here / folder / f"{i}.png", image)
    for name, lines in {
        "photos.txt": [f"photos/{i}.jpg" for i in range(6)], "images.txt": ["image/0.png", "image/1.png"],
        "masks.txt": ["alpha/0.png", "alpha/1.png"],
        "fg.txt": ["1.png", "0.png"], "bg.txt": [f"{i}.jpg" for i in range(6)], "bad.txt": [],
        "config.toml": ["seed = 3"], "groups.csv": ["name,group", "0,SO", "1,NS"],
    }.items():  # fmt: skip
        (here / name).write_text("".join(f"{line}\n" for line in lines))
    torch.manual_seed(0)
    torch.save({"model": create_model(NETWORK).state_dict(), "config": {"model": NETWORK}}, here / "net.pt")
    (here / "old").mkdir()
    (here / "old/config.toml").write_text(f'model = "{NETWORK}"\nout = "old"\ndata = "photos"\n')
    (here / "old/log.jsonl").write_text("".join(f'{{"step": {i}, "loss": {1 / i}}}\n' for i in range(1, 9)))
    return here


@pytest.fixture
def bench(template, tmp_path, monkeypatch, request):
    """A copy of the folder, which the command runs in."""
    shutil.copytree(template, tmp_path / "bench")
    monkeypatch.setattr("dptmat.pipelines.loader._WAITS", (0.01,))  # for a file system that is away
    monkeypatch.chdir(tmp_path / "bench")
    monkeypatch.setattr(logging.getLogger("dptmat"), "propagate", False)  # pytest's processes pass on no odd names
    tried = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if "net.pt" not in tried.values() and tried.get("command") not in ("convert", "push"):
        network = StandIn()  # where no fault is in the weights, those of a real network would take the most time
        monkeypatch.setattr("dptmat.weights.load.load_network", lambda path, device="cpu": (network.to(device), {}))
    return tmp_path / "bench"


def digests(folder):
    """Digest of every plain file below a folder, by name."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def try_it(dptmat, bench, words):
    """Run a command: status and what it said; nothing of the user's may have changed, and nothing be half-written."""
    before = digests(bench)
    status, output, error = dptmat(*words)
    after = digests(bench)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if ".part" in name]
    said = (output + error).encode(errors="backslashreplace").decode()
    assert "Traceback" not in said
    if status == 2:
        assert error.strip().splitlines()[-1].startswith(("dptmat: ", "left out: "))
        # A run has a folder by then; composites of before a damaged background are whole, and made again next time.
        begun = ("run/", "out/") if words[0] == "compose" else ("run/",)
        assert not [name for name in after.keys() - before.keys() if not name.startswith(begun)]
    return status, said


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_works_where_nothing_is_wrong(dptmat, bench, command):
    status, said = try_it(dptmat, bench, COMMANDS[command])
    assert status == 0, said


def put(path, content):
    path.write_bytes(content)


def pipe(path):
    """Make a pipe that somebody writes nothing into, once it is read."""
    os.mkfifo(path)
    threading.Thread(target=lambda: open(path, "wb").close(), daemon=True).start()


# In place of a file or folder, whatever it was.
WRONG = {
    "missing": lambda path: None,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "pipe": pipe,
    "page": lambda path: put(path, b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n"),
    "zeros": lambda path: put(path, bytes(5000)),
    "empty": lambda path: put(path, b""),
    "film": lambda path: put(path, b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(range(256))),
    "utf16": lambda path: put(path, "photos/0.jpg\nphotos/1.jpg\n".encode("utf-16")),
    "folder": lambda path: path.mkdir(),
}
# A list without a line, settings without a setting.
FINE = {("bad.txt", "empty"), ("bad.txt", "pipe"), ("config.toml", "empty"), ("config.toml", "pipe")}


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.slow
@crossed(SLOTS, WRONG)
def test_what_is_something_else_is_refused_by_name(dptmat, bench, command, name, fault):
    remove(bench / name)
    WRONG[fault](bench / name)
    status, said = try_it(dptmat, bench, COMMANDS[command])
    if (name, fault) in FINE or (command, fault) == ("report", "folder"):  # an empty one: no image may be shown
        assert status == 0, said
    else:
        assert status == 2, said
        assert os.path.basename(name) in said.strip().splitlines()[-1]


@pytest.mark.slow
@crossed(SLOTS, ["net.pt/below", "gone/x", "a" * 300])
def test_a_path_that_leads_nowhere_is_refused_by_name(dptmat, bench, command, name, fault):
    words = [fault if word == name else word for word in COMMANDS[command]]
    status, said = try_it(dptmat, bench, words)
    assert status == 2, said
    assert fault[:100] in said


@pytest.mark.slow
@crossed(
    [slot for slot in SLOTS if "/" not in slot[1]], [b"caf\xe9", b"\xff\xfe", "Zo\u0308e \u2028x".encode(), b"-x =1+1"]
)
def test_any_name_of_a_file_or_folder_will_do(dptmat, bench, command, name, fault):
    odd = os.fsdecode(fault) + os.path.splitext(name)[1]
    os.rename(bench / name, bench / odd)
    status, said = try_it(dptmat, bench, [f"./{odd}" if word == name else word for word in COMMANDS[command]])
    assert status == 0, said


def overwrite(edit):
    """What changes a file of a folder by its pixels."""

    def change(path):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), edit(pixels))

    return change


def replace(make):
    def change(path):
        path.unlink()
        make(path)

    return change


MEMBERS = {
    **{name: replace(make) for name, make in WRONG.items() if name not in ("missing", "utf16")},
    "cut": lambda path: put(path, path.read_bytes()[: path.stat().st_size * 2 // 3]),
    "head": lambda path: put(path, path.read_bytes()[:20]),
}
NOT_FOR_PHOTOGRAPHS = {
    "size": overwrite(lambda pixels: pixels[:-8]),
    "range": overwrite(lambda pixels: (pixels > 127).astype(np.uint8)),
}


@pytest.mark.slow
@crossed(FOLDERS, [*MEMBERS, *NOT_FOR_PHOTOGRAPHS])
def test_a_bad_file_in_a_folder_is_named(dptmat, bench, command, name, fault):
    if (name == "photos" and fault in NOT_FOR_PHOTOGRAPHS) or (name == "cutouts" and fault == "size"):
        pytest.skip("a photograph may have any size, and so may a cut-out")
    if name == "photos" and command == "check":
        pytest.skip("backgrounds are counted, not decoded")
    victim = sorted((bench / name).iterdir())[0]
    {**MEMBERS, **NOT_FOR_PHOTOGRAPHS}[fault](victim)
    words = COMMANDS[command]
    if words[0] in ("pretrain", "finetune"):
        words = [*words, "--max-bad", "0.9", "--steps", "6"]
    status, said = try_it(dptmat, bench, words)
    if fault == "folder":
        # It is searched, and may leave another file without a partner, which `check` finds.
        assert status in ((0, 1) if words[0] == "check" else (0, 2))
        return
    assert victim.name in said or victim.stem in said
    if name == "photos" and words[0] != "compose":
        assert status == 0
    elif words[0] in ("predict", "evaluate", "trimap"):
        assert status == 1


LITTER = ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._0.png", "@eaDir/0.png", "notes.txt")


@pytest.mark.slow
@crossed(FOLDERS, ["litter"])
def test_litter_in_a_folder_changes_nothing(dptmat, bench, command, name, fault):
    status, _ = try_it(dptmat, bench, COMMANDS[command])
    assert status == 0
    results = digests(bench)
    for word in ("out", "run"):
        shutil.rmtree(bench / word, ignore_errors=True)
    for litter in LITTER:
        (bench / name / litter).parent.mkdir(exist_ok=True)
        (bench / name / litter).write_bytes(b"\0\5\x16\7")
    status, said = try_it(dptmat, bench, COMMANDS[command])
    assert status == 0, said
    again = digests(bench)
    same = [path for path in results if path.startswith("out/") and path.endswith(".png")]
    assert {path: again[path] for path in same} == {path: results[path] for path in same}


ODD = ["a b.png", "=1+1.png", "-rf.png", "Zo\u0308e.png", os.fsdecode(b"caf\xe9.png"), "x.tar.png", "%s{}.png"]


@pytest.mark.slow
@crossed(
    [
        (command, "0.png")
        for command in ("pretrain", "finetune", "predict", "evaluate", "evaluate files", "compose", "trimap")
    ],
    ODD,
)
def test_any_names_of_images_will_do(dptmat, bench, command, name, fault):
    for folder in ("fg", "matte", "image", "trimap", "alpha", "predictions"):
        os.rename(bench / folder / name, bench / folder / fault)
    (bench / "fg.txt").write_bytes(b"1.png\n" + os.fsencode(fault) + b"\n")
    status, said = try_it(dptmat, bench, COMMANDS[command])
    assert status == 0, said
    if command in ("predict", "trimap"):
        assert (bench / "out" / fault).exists()


@pytest.mark.slow
@crossed([(command, "out") for command in COMMANDS], ["net.pt", "net.pt/x", "gone/deep/x", "photos", "photos/0.jpg"])
def test_an_output_where_none_can_be_is_refused_before_the_work(dptmat, bench, command, name, fault):
    """A file where a folder is to be, a folder where a file is to be, and nothing that was there is touched."""
    words = list(COMMANDS[command])
    at = words.index("--out") + 1 if "--out" in words else 2
    words[at] = fault
    status, said = try_it(dptmat, bench, words)
    adds_to_a_folder = words[0] in (
        "pretrain", "finetune", "predict", "evaluate", "compose", "cutout", "trimap", "pack"
    )  # fmt: skip
    may_be = {"gone/deep/x", "photos"} if adds_to_a_folder else {"gone/deep/x"} if words[0] == "push" else set()
    if fault in may_be:
        assert status == 0 or "is read" in said or "is what is read" in said  # made, or added to
    else:
        assert status == 2, said
        assert fault in said


def test_every_option_that_takes_a_file_is_tried():
    """Of all commands, by what their help says that the option takes."""
    from dptmat.cli.group import _is_path
    from dptmat.cli.group import dptmat as group

    tried = {(words[0], word) for words in COMMANDS.values() for word in words if word.startswith("--")}
    for command in group.commands.values():
        for parameter in command.params:
            if _is_path(parameter) and parameter.opts[0].startswith("--") and not getattr(parameter, "hidden", False):
                if parameter.opts[0] in ("--resume",):  # of a run: test_resume.py
                    continue
                assert (command.name, parameter.opts[0]) in tried | NOT_TRIED, (command.name, parameter.opts[0])


# The same reader as that of another option, which is tried.
NOT_TRIED = {
    ("compose", "--trimap"), ("preview", "--quarantine"), ("preview", "--config"), ("app", "--checkpoint"),
}  # fmt: skip
