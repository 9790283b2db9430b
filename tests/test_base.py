"""The base package: what it promises without DALI and CuPy, and without what only Linux has."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mattes import shades, soft_disc, write_mattes

from dptmat.models import create_model

# Stands in for a machine of macOS or Windows: runs each list of words as the command, in one process.
PREAMBLE = """
import contextlib, io, json, os, signal, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("nvidia", "cupy", "fcntl", "resource"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
for module, names in (
    (os, ("sched_getaffinity", "sched_setaffinity", "pread", "pwrite", "mkfifo")),
    (signal, ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGKILL", "SIGALRM", "setitimer", "pthread_sigmask")),
):
    for name in names:
        delattr(module, name)

from dptmat.cli import main

def run(words):
    sys.argv = ["dptmat", *words]
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    try:
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    texts = []
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    return status, *texts

print(json.dumps([run(words) for words in json.load(sys.stdin)]))
"""


def run_base(*commands):
    """Run commands one after the other on the base package: (status, output, errors) of each."""
    ended = subprocess.run(
        [sys.executable, "-c", PREAMBLE], input=json.dumps([[str(word) for word in words] for words in commands]),
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


COMMANDS = (
    "pretrain",
    "finetune",
    "preview",
    "index",
    "stats",
    "models",
    "convert",
    "evaluate",
    "predict",
    "compose",
    "report",
    "trimap",
    "app",
)


def test_every_help_is_shown():
    for status, printed, told in run_base(["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)):
        assert (status, told) == (0, "")
        assert printed.startswith(("Usage: ", "dptmat, version "))


@pytest.fixture
def sample_set(tmp_path):
    """Folders image, trimap and alpha of two names, in ``set``, and a checkpoint ``net.pt``."""
    for i in range(2):
        alpha = soft_disc(64, 96 + i)
        trimap = np.select([alpha == 0, alpha == 255], [0, 255], 128).astype(np.uint8)
        for folder, content in (("image", shades(64, 96 + i, i)), ("trimap", trimap), ("alpha", alpha)):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"set/{folder}/{i}.png"), content)
    torch.manual_seed(0)
    config = {"model": "unet_resnet10t", "trimap": True}
    torch.save({"model": create_model("unet_resnet10t").state_dict(), "config": config}, tmp_path / "net.pt")
    return tmp_path / "set"


@pytest.mark.slow
def test_networks_predict_are_scored_and_converted(sample_set, tmp_path):
    net, image, trimap, alphas = tmp_path / "net.pt", sample_set / "image", sample_set / "trimap", tmp_path / "alphas"
    predicted, judged, scored, converted = run_base(
        ["predict", "--checkpoint", net, "--image", image, "--trimap", trimap, "--out", alphas],
        ["evaluate", "--checkpoint", net, "--data", sample_set, "--out", tmp_path / "scores"],
        ["evaluate", "--predictions", alphas, "--data", sample_set],
        ["convert", net, tmp_path / "converted.pt"],
    )  # fmt: skip
    assert predicted[:2] == [0, f"{alphas}: 2 alphas, 0 left out\n"], predicted[2]
    assert judged[0] == scored[0] == 0, judged[2] + scored[2]
    assert "mean of 2" in judged[1]
    assert "mean of 2" in scored[1]
    assert converted[0] == 0, converted[2]
    assert torch.load(tmp_path / "converted.pt", weights_only=True)["config"]["model"] == "unet_resnet10t"


@pytest.mark.slow
def test_test_sets_are_composed(tmp_path):
    fg, alpha = write_mattes(tmp_path, [(30, 40), (50, 20)])
    (tmp_path / "bg").mkdir()
    for i in range(2):
        cv2.imwrite(str(tmp_path / f"bg/{i}.png"), shades(60, 60, i))
    ((status, printed, told),) = run_base(
        ["compose", "--fg", fg, "--alpha", alpha, "--bg", tmp_path / "bg", "--each", 1, "--out", tmp_path / "out"]
    )
    assert (status, printed) == (0, f"{tmp_path}/out: 2 composites of 2 foregrounds\n"), told


def test_photographs_are_indexed_by_pillow_where_there_is_no_dali(photographs, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    content = sorted(photographs.iterdir())[0].read_bytes()
    (folder / "a.jpg").write_bytes(content)
    (folder / "b.jpg").write_bytes(content[: len(content) // 2])
    cv2.imwrite(str(folder / "c.png"), shades(40, 50, 0))
    (folder / "d.png").write_bytes((folder / "c.png").read_bytes()[:-200])
    (folder / "e.png").write_text("text")
    ((status, printed, told),) = run_base(["index", "--data", folder, "--out", tmp_path / "list.txt"])
    assert status == 0, told
    assert (tmp_path / "list.txt").read_text() == f"{folder}/a.jpg\n{folder}/c.png\n"
    left_out = [line.split(": ")[1] for line in printed.splitlines()[:-1]]
    assert left_out == [f"{folder}/{name}" for name in ("b.jpg", "d.png", "e.png")]
    assert told.count("DALI is not installed") == 1


@pytest.mark.slow
def test_a_run_of_another_machine_is_reported(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.toml").write_text('model = "gca"\ndata = "photographs"\nsteps = 20\n')
    lines = [{"step": step, "loss": 3 / step, "learning_rate": 1e-4} for step in (10, 20)]
    (tmp_path / "run/log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    ((status, _, told),) = run_base(["report", "--run", tmp_path / "run", "--out", tmp_path / "page.html"])
    assert status == 0, told
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.mark.exhaustive
def test_networks_are_listed():
    ((status, printed, _),) = run_base(["models"])
    assert status == 0
    assert "matteformer" in printed


@pytest.mark.slow
def test_training_names_what_to_install(photographs, sample_set, tmp_path):
    folders = ["--fg", sample_set / "image", "--alpha", sample_set / "alpha", "--bg", photographs]
    for status, printed, told in run_base(
        ["pretrain", "--data", photographs, "--out", tmp_path / "run"],
        ["finetune", *folders, "--init", "random", "--out", tmp_path / "run"],
        ["preview", "--data", photographs, "--out", tmp_path / "preview.png"],
    ):
        assert (status, printed) == (2, "")
        assert told.startswith("dptmat: ")
        assert told.count("\n") == 1
        assert "pip install 'dptmat[cuda13]'" in told
    assert not (tmp_path / "run").exists()
