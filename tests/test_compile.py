"""Compiled block by block, a network trains as it does eagerly, under its own names, and is judged at any size."""

import math
import time
from types import SimpleNamespace

import pytest
import torch
from networks import CPU, batch_of, state_of
from torch._dynamo.utils import counters

from dptmat.defaults import LOSSES
from dptmat.errors import UserError
from dptmat.losses import matting_losses
from dptmat.models import create_model
from dptmat.models.decoder import decoder_stage
from dptmat.models.resnet import _stage
from dptmat.tasks.pretrain import pretrain
from dptmat.training import checkpoint
from dptmat.training.compile import compile_blocks
from dptmat.training.distributed import Process
from dptmat.training.optim import adamw
from dptmat.training.run import Run
from dptmat.training.trainer import Trainer


@pytest.fixture(autouse=True)
def fresh():
    """Nothing compiled before, and nothing left behind."""
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


class Small(torch.nn.Module):
    """Two residual blocks down and two up, spectrally normalised as in the networks."""

    def __init__(self):
        super().__init__()
        self.down, self.up = _stage(6, 8, 2, stride=2), decoder_stage(8, 3, 2)

    def forward(self, x):
        alphas = torch.sigmoid(self.up(self.down(x)).float())
        return {f"alpha_os{stride}": alphas[:, i : i + 1] for i, stride in enumerate((1, 4, 8))}


def make_trainer(compile, process=CPU):
    torch.manual_seed(0)
    model = Small()
    return Trainer(
        model, lambda outputs, batch, step: matting_losses(outputs, batch, ["l1", "lap"]),
        adamw(model, 0.05, (0.9, 0.95)), lambda step: 0.003, process,
        seed=3, accumulate=2, clip=1.0, clip_factor=math.inf, amp="off", compile=compile,
    )  # fmt: skip


def train(trainer, steps):
    """Take steps on samples of their own; the losses."""
    parts = trainer._process.rank, trainer._process.world_size * 2
    losses = []
    for number in steps:
        first = (number * parts[1] + 2 * parts[0]) * 2
        losses.append(trainer.step(number, iter([batch_of([first, first + 1]), batch_of([first + 2, first + 3])])))
    return torch.stack([totals["loss"] for totals, _ in losses])


@pytest.mark.exhaustive
def test_training_compiled_equals_eager_and_resumes_exactly(tmp_path):
    eager, compiled = make_trainer(False), make_trainer(True)
    start = time.perf_counter()
    losses = train(compiled, range(1))
    assert time.perf_counter() - start < 240  # half a minute on one busy core, most of it the C++ compiler's
    graphs = counters["stats"]["unique_graphs"]
    assert 0 < graphs <= 2 * 4  # four blocks, with and without a power iteration of their norms
    losses = torch.cat([losses, train(compiled, range(1, 4))])
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    assert torch.allclose(losses, train(eager, range(4)), rtol=1e-4)  # sums in another order
    assert compiled.state_dict()["model"].keys() == eager.state_dict()["model"].keys()

    torch.save(compiled.state_dict(), tmp_path / "state.pt")
    resumed = make_trainer(True)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(train(resumed, range(4, 6)), train(compiled, range(4, 6)))
    assert all(map(torch.equal, state_of(resumed), state_of(compiled)))
    eager.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))  # `compile` may change on a resume


def test_validation_compiles_nothing_for_images_of_any_size():
    trainer = make_trainer(True)

    class Task:
        def validate(self, model, step):
            model.eval()
            for height in (32, 64, 96):
                assert model(torch.rand(1, 6, height, 64))["alpha_os1"].shape == (1, 1, height, 64)

    with torch.compiler.set_stance("default", force_backend="eager"):
        Run.validate(SimpleNamespace(task=Task(), trainer=trainer, done=0))
        assert counters["stats"]["unique_graphs"] == 0
        train(trainer, range(1))
        assert counters["stats"]["unique_graphs"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [("alpha_os1",), ("alpha_os1", "alpha_os4", "alpha_os8")])
@pytest.mark.parametrize("in_regions", [False, True])
def test_compiled_losses_equal_eager_ones(outputs, in_regions):
    random = torch.Generator().manual_seed(0)
    batch = batch_of([0, 1])
    alphas = [torch.rand(batch.alpha.shape, generator=random) for _ in outputs]
    regions = {key: torch.rand(batch.alpha.shape, generator=random) < 0.4 for key in outputs} if in_regions else None
    results = []
    with torch.compiler.set_stance("default", force_backend="aot_eager"):
        for compile in (False, True):
            leaves = [alpha.clone().requires_grad_() for alpha in alphas]
            given = dict(zip(outputs, leaves, strict=True))
            losses = matting_losses(given, batch, LOSSES, regions, compile)
            sum(losses.values()).backward()
            results.append([*losses.values(), *(leaf.grad for leaf in leaves)])
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert all(torch.allclose(x, y, rtol=1e-5, atol=1e-9) for x, y in zip(*results, strict=True))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_compiled_run_goes_on_where_another_ended(photographs, tmp_path):
    """With the losses of an uncompiled one; the compiler's part is done by one that changes nothing."""
    options = {"data": photographs, "model": "unet_resnet10t", "size": 64, "batch_size": 8, "micro_batch": 4}
    options |= {"steps": 2, "save_every": 1, "log_every": 1, "device": "cpu"}
    eager = checkpoint.load(pretrain(out=tmp_path / "eager", **options))["model"]
    with torch.compiler.set_stance("default", force_backend="eager"):
        pretrain(out=tmp_path / "run", compile=True, **options)
        assert counters["stats"]["unique_graphs"] > 0
        (tmp_path / "run/checkpoints/step-000000002.pt").unlink()
        resumed = checkpoint.load(pretrain(out=tmp_path / "run", compile=True, resume="auto", **options))["model"]
    assert eager.keys() == resumed.keys()
    assert all(torch.allclose(x, resumed[name], rtol=1e-4, atol=1e-6) for name, x in eager.items())


@pytest.mark.slow
def test_without_a_working_compiler_one_sentence_says_so(photographs, tmp_path):
    def broken(graph, inputs):
        raise OSError("no working C++ compiler found")

    options = {"model": "unet_resnet10t", "size": 64, "batch_size": 4, "steps": 1, "device": "cpu", "compile": True}
    with (
        torch.compiler.set_stance("default", force_backend=broken),
        pytest.raises(UserError, match="`compile` fails here: .*no working C.. compiler found.*; leave it out, or see"),
    ):
        pretrain(data=photographs, out=tmp_path, **options)


def train_as_one_of_two(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for compile in (False, True):
        trainer = make_trainer(compile, Process(rank, 2, 1, torch.device("cpu")))
        with torch.compiler.set_stance("default", force_backend="aot_eager"):
            train(trainer, range(3))
        if rank == 0:
            torch.save(trainer.state_dict()["model"], f"{folder}/{compile}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_processes_train_compiled_blocks(tmp_path):
    torch.multiprocessing.spawn(train_as_one_of_two, (str(tmp_path),), nprocs=2)
    eager, compiled = (torch.load(tmp_path / f"{name}.pt") for name in (False, True))
    assert eager.keys() == compiled.keys()
    assert all(torch.allclose(x, compiled[name], atol=1e-5) for name, x in eager.items())


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("matteformer", 12 + 6 + 10),  # transformer blocks, branches of the shortcuts, blocks of the decoder
        ("gca", 13 + 5 + 10),
        ("mgmatting", 13 + 5 + 10),
        ("unet_resnet50", 16 + 6 + 10),
        ("unet_swin_tiny_patch4_window7_224", 12 + 6 + 10),
        ("vitmatte_small", 12 + 3 + 4 + 1),  # transformer blocks, the stream of detail, fusions, the head
    ],
)
def test_the_smallest_blocks_are_compiled_under_their_own_names(name, blocks):
    network = create_model(name)
    names = list(network.state_dict())
    assert compile_blocks(network) == blocks
    assert list(network.state_dict()) == names
    assert network._compiled_call_impl is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "checkpointing", "most"),
    # Blocks of a timm backbone are alike; those with stochastic depth or spectral norms of their own are not.
    [
        ("matteformer", False, 28),
        ("matteformer", True, 28),
        ("gca", False, 28),
        ("unet_resnet50", False, 24),
        ("vitmatte_small", False, 20),
        ("vitmatte_small", True, 20),
    ],
)
@pytest.mark.exhaustive
def test_networks_compile_without_a_break_and_once(name, checkpointing, most):
    torch.manual_seed(0)
    network = create_model(name, 6, checkpointing).train()
    compile_blocks(network)
    x = torch.randn(2, 6, 64, 64)
    x[:, 3:] = torch.nn.functional.one_hot(torch.randint(0, 3, (2, 64, 64)), 3).permute(0, 3, 1, 2)
    with torch.compiler.set_stance("default", force_backend="eager"):
        for _ in range(2):
            sum(alpha.mean() for alpha in network(x).values()).backward()
            assert counters["stats"]["unique_graphs"] <= most
    assert not counters["graph_break"]
    assert all(parameter.grad is not None for parameter in network.parameters())
