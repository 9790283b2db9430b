"""The batch file for Slurm, run by bash with a stand-in for each of Slurm's programs, and two machines by torchrun."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from options import as_words

from dptmat.config.pretrain import PretrainConfig
from dptmat.tasks.pretrain import pretrain
from dptmat.training import checkpoint

ROOT = Path(__file__).parent.parent
BATCH_FILE = ROOT / "recipes/slurm.sbatch"
SMALL = {"size": 64, "batch_size": 8, "micro_batch": 2, "model": "unet_resnet10t", "log_every": 1, "device": "cpu"}
# Each machine is a torchrun here, as srun starts one on each; a signal goes to all of them.
SRUN = """#!/bin/bash
trap 'kill -TERM $(jobs -p)' TERM
for ((node = 0; node < SLURM_NNODES; node++)); do "$@" & done
for job in $(jobs -p); do wait "$job" || wait "$job" || status=$?; done
exit "${status:-0}"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "$CALLS"; fi
"""
TORCHRUN = """#!/bin/bash
exec {python} -m torch.distributed.run "$@"
"""


def free_port():
    with socket.socket() as end:
        end.bind(("localhost", 0))
        return end.getsockname()[1]


@pytest.fixture
def batch(tmp_path):
    """Function that starts the batch file with some words, as on two machines of one process each."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("torchrun", TORCHRUN.format(python=sys.executable))):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    started = []

    def start(*words):
        number = 20000 + free_port() % 10000  # of which the file makes the port
        slurm = {"NNODES": 2, "GPUS_ON_NODE": 1, "CPUS_PER_TASK": 1, "JOB_ID": number, "JOB_NODELIST": "a[1-2]"}
        environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls")}
        environment |= {"OMP_NUM_THREADS": "1", **{f"SLURM_{name}": str(value) for name, value in slurm.items()}}
        process = subprocess.Popen(
            ["bash", str(BATCH_FILE), *map(str, words)], env=environment, cwd=tmp_path, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def losses(out):
    if not (out / "log.jsonl").exists():
        return {}
    lines = [line for line in (out / "log.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
    return {line["step"]: line["loss"] for line in map(json.loads, lines) if "loss" in line}


def test_the_batch_file_is_one_of_bash_and_slurm():
    subprocess.run(["bash", "-n", str(BATCH_FILE)], check=True)
    lines = BATCH_FILE.read_text().splitlines()
    at = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    # sbatch reads no further than the first line that is no comment
    assert all(line.startswith("#") or not line for line in lines[: at[-1]])
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", lines[number]) for number in at)


@pytest.mark.exhaustive
def test_two_machines_stop_at_a_signal_queue_again_and_end_as_one_process_does(photographs, tmp_path, batch):
    options = {**SMALL, "steps": 12, "save_every": 100, "lr": 0.0}  # without one, sums in another order do not add up
    words = ["pretrain", *as_words({"data": photographs, "out": tmp_path / "two", **options})]
    job = batch(*words)
    while len(losses(tmp_path / "two")) < 2:
        assert job.poll() is None, job.stdout.read()
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=120)
    assert job.returncode == 0, output
    assert re.fullmatch(r"requeue \d+\n", (tmp_path / "calls").read_text())
    reached = checkpoint.load(checkpoint.latest(tmp_path / "two/checkpoints"))["step"]
    assert 2 <= reached < 12, output
    assert "SIGTERM asked to stop" in output or "a signal to another process asked to stop" in output
    job = batch(*words)  # as Slurm does when it is its turn again
    output, _ = job.communicate(timeout=240)
    assert job.returncode == 0, output
    assert f"going on after step {reached}" in output
    pretrain(PretrainConfig(data=str(photographs), out=str(tmp_path / "one"), **options))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)
    assert list(losses(tmp_path / "two")) == list(range(1, 13))


@pytest.mark.exhaustive
def test_a_failure_is_the_job_s(tmp_path, batch):
    job = batch("pretrain", "--data", tmp_path / "gone", "--out", tmp_path / "run")
    output, _ = job.communicate(timeout=240)
    assert job.returncode != 0
    assert "gone does not exist" in output
    assert not (tmp_path / "calls").exists()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_the_batch_file_has_no_slip_that_shellcheck_knows():
    subprocess.run(["shellcheck", str(BATCH_FILE)], check=True)
