"""An error of any type at any seam of a run: the last whole step is on the disk, and the run goes on from it.

A usual run has one error at each second seam.
"""

import errno

import pytest
import torch

from dptmat.config.pretrain import PretrainConfig
from dptmat.errors import UserError
from dptmat.pipelines import loader
from dptmat.pipelines._dali import Pipeline
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.pipelines.read_ahead import Reader
from dptmat.tasks import pretrain as task
from dptmat.tasks.pretrain import pretrain
from dptmat.training import checkpoint
from dptmat.training.averages import Averages
from dptmat.training.bottleneck import Bottleneck
from dptmat.training.data_wait import DataWait
from dptmat.training.log import RunLog
from dptmat.training.trainer import Trainer

ERRORS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"), MemoryError(), KeyError("x"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), OSError(errno.EIO, "Input/output error"), AssertionError(),
    OSError(errno.ENOSPC, "No space left on device"), torch.OutOfMemoryError("CUDA out of memory."), IndexError("x"),
    ValueError("x"), UserError("something to mend"), ZeroDivisionError("x"), TypeError("x"), StopIteration(),
]  # fmt: skip
# Where a run calls what may fail: what is replaced, and the call of it that fails first, in the third step of six.
SEAMS = {
    "reader": (Reader, "__call__", 6),
    "arguments": (PretrainSource, "arguments", 6),
    "graph": (Pipeline, "run", 4),
    "operator": (task, "synthesize_batch", 4),
    "wait": (DataWait, "__next__", 3),
    "loss": (task, "matting_losses", 3),
    "step": (Trainer, "step", 3),
    "means": (Averages, "read", 3),
    "log": (RunLog, "report", 3),
    "advice": (Bottleneck, "look", 3),
    "checkpoint": (checkpoint, "save", 2),
}
pytestmark = pytest.mark.usefixtures("freed")
SMALL = {"size": 64, "batch_size": 2, "model": "unet_resnet10t", "log_every": 1, "steps": 6, "save_every": 2}


def run(data, out, **options):
    return pretrain(PretrainConfig(data=str(data), out=str(out), device="cpu", threads=1, **SMALL, **options))


@pytest.fixture(scope="module")
def whole(photographs, tmp_path_factory):
    """Last checkpoint of a run to which nothing happened."""
    return checkpoint.load(run(photographs, tmp_path_factory.mktemp("whole") / "run"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seam", "error"),
    [
        pytest.param(seam, error, marks=() if place == number and place % 4 == 0 else pytest.mark.exhaustive)
        for place, seam in enumerate(SEAMS)
        for number, error in enumerate(ERRORS)
    ],
)
def test_what_ends_a_run_costs_no_whole_step(photographs, tmp_path, monkeypatch, whole, seam, error):
    place, name, good = SEAMS[seam]
    function, calls = getattr(place, name), []

    def failing(*args, **options):
        calls.append(0)
        if len(calls) > good:
            raise error
        return function(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_WAITS", (0.01,))
        patched.setattr(loader, "_WAITS", (0.01,))
        patched.setattr(place, name, failing)
        with pytest.raises(Exception) as ended:  # noqa: PT011 - of any type
            run(photographs, tmp_path / "run")
    assert str(ended.value) or isinstance(ended.value, type(error))
    reached = checkpoint.latest(tmp_path / "run/checkpoints")
    assert reached is not None
    state = checkpoint.load(reached)
    assert 1 <= state["step"] <= 5
    if seam not in ("checkpoint", "reader", "arguments"):  # these are ahead of the steps, or cannot save them
        assert state["step"] >= 2
    result = checkpoint.load(run(photographs, tmp_path / "run", resume="auto"))
    assert result["step"] == 6
    assert all(torch.equal(value, result["model"][key]) for key, value in whole["model"].items())
    for key, moments in whole["optimizer"]["state"].items():
        assert all(torch.equal(value, result["optimizer"]["state"][key][name]) for name, value in moments.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        *(pytest.param(other, marks=pytest.mark.exhaustive) for other in (RuntimeError("x"), MemoryError())),
    ],
)
def test_what_is_for_people_alone_ends_no_run(photographs, tmp_path, monkeypatch, whole, error):
    """Curves for TensorBoard, and lines on the terminal."""
    from torch.utils.tensorboard import SummaryWriter

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    monkeypatch.setattr("sys.stdout.write", fail, raising=False)
    result = checkpoint.load(run(photographs, tmp_path / "run"))
    assert all(torch.equal(value, result["model"][key]) for key, value in whole["model"].items())
