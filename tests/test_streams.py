"""Output for people is no condition of the job: closed, broken and full standard streams."""

import os
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "dptmat"]
SMALL = ["--size", "64", "--batch-size", "4", "--model", "unet_resnet10t", "--steps", "2", "--log-every", "1"]


def end(words, redirection, cwd):
    """Run a command by a shell: status and standard error."""
    line = " ".join([*COMMAND, *map(str, words), redirection])
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=cwd, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "redirection",
    [
        "> /dev/full 2> /dev/full",
        *(pytest.param(other, marks=pytest.mark.exhaustive) for other in ("> /dev/full", ">&-", "| true", ">&- 2>&-")),
    ],
)
def test_a_training_goes_on_without_its_lines(photographs, tmp_path, redirection):
    words = ["pretrain", "--data", photographs, "--out", tmp_path / "run", "--device", "cpu", *SMALL]
    assert end(words, redirection, tmp_path) == (0, "")
    assert (tmp_path / "run/checkpoints/step-000000002.pt").exists()
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("redirection", "status", "message"),
    [
        ("> /dev/full", 2, "dptmat: [Errno 28] No space left on device\n"),  # an answer that is lost is a failure
        (">&-", 0, ""),
        ("2> /dev/full", 0, ""),
    ],
)
def test_an_answer_that_is_lost_is_told(tmp_path, redirection, status, message):
    words = ["pretrain", "--data", "a", "--out", "b", "--dry-run"]
    assert end(words, redirection, tmp_path) == (status, message)


def test_a_reader_who_has_had_enough_is_no_traceback(tmp_path):
    status, error = end(["pretrain", "--data", "a", "--out", "b", "--dry-run"], "| true", tmp_path)
    assert (status in (0, 1), error) == (True, "")


def test_names_that_are_no_text_are_shown_escaped(tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9"
    done = subprocess.run([*COMMAND, "report", "--run", name], capture_output=True, cwd=tmp_path)
    assert done.returncode == 2
    assert b"caf\\udce9 is no folder" in done.stderr
