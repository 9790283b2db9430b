"""Count what each network costs, which ``dptmat models`` tells: parameters, multiply-adds, and memory at its peak.

    python benchmarks/costs.py

Memory is that of all tensors that are alive at once, in float32: weights, gradients, Adam's moments, what is kept for
the backward pass, inputs and results. It is found without a GPU and without work, by tensors that have shapes and no
values, which PyTorch's operators for the CPU make and drop as they do real ones. It is not what a GPU shows: there the
allocator rounds up and keeps what is free, CUDA and the kernels take memory of their own, and attention that is
trained with a bias holds less than on the CPU.

Training is the second step of a run, with two crops: MG Matting cannot normalise one. Prediction is what
``dptmat predict`` does with one image, in tiles where it takes tiles.
"""

import json
import math
import weakref
from contextlib import contextmanager
from types import SimpleNamespace

import click
import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dptmat.files import write_whole
from dptmat.inference import predict_alpha
from dptmat.losses import matting_losses
from dptmat.models import MODELS, create_model
from dptmat.models.cost import COSTS, cost
from dptmat.training.distributed import Process
from dptmat.training.optim import adamw
from dptmat.training.trainer import Trainer

CROPS, CROP = 2, 512
BACKBONES = "resnet18", "resnet34", "resnet50", "swin_tiny_patch4_window7_224", "convnext_tiny"
TRANSFORMERS = "vit_small_patch14_dinov2", "vit_small_patch16_dinov3"
NAMES = *MODELS, *(f"unet_{name}" for name in BACKBONES), *(f"vit_{name}" for name in TRANSFORMERS)


class Peak(TorchDispatchMode):
    """Adds up the bytes of the tensors that operators make, as long as these are alive; ``highest`` is the peak."""

    def __init__(self, tensors=()):
        super().__init__()
        self.now = self.highest = 0
        self._alive = set()
        for tensor in tensors:
            self.note(tensor)

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        results = operator(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                self.note(result)
        return results

    def note(self, tensor):
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:  # a view is of what is there
            self._alive.add(key)
            self.now += size
            self.highest = max(self.highest, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self._alive.discard(key)
        self.now -= size


def tensors_of(network):
    return [*network.parameters(), *network.buffers()]


@contextmanager
def without_values(network):
    """Tensors that are made have no values, nor has a network."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode():
            network._apply(lambda x: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype))
            yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def train_two_steps(network, crops=CROPS, side=CROP):
    """Take two steps as a run does, on one micro-batch; within `without_values`, or for real."""

    def losses(outputs, batch, step):
        return matting_losses(outputs, batch, ("l1", "comp", "lap"))

    trainer = Trainer(
        network, losses, adamw(network, 0.05, (0.9, 0.95)), lambda step: 1e-4, Process(0, 1, 1, torch.device("cpu")),
        seed=0, accumulate=1, clip=5.0, clip_factor=math.inf, amp="off", compile=False,
    )  # fmt: skip
    alpha, contrast = torch.zeros(crops, 1, side, side), torch.ones(crops, 1, side, side)
    trimap = torch.ones(crops, 1, side, side, dtype=torch.uint8)
    batch = SimpleNamespace(
        input=torch.ones(crops, network.in_channels, side, side), alpha=alpha, contrast=contrast, trimap=trimap
    )
    for number in range(2):
        trainer.step(number, iter([batch]))


def peak_of_training(name, crops=CROPS, side=CROP):
    """Find the peak of a training step, in bytes."""
    network = create_model(name).to(memory_format=torch.channels_last)
    with without_values(network), Peak(tensors_of(network)) as peak:
        train_two_steps(network, crops, side)
    return peak.highest


def peak_of_forward(name, shape):
    """Find what a network's evaluation needs at its peak besides weights and input, in bytes."""
    network = create_model(name).eval()
    with without_values(network):
        # Not in inference mode, in which the parts of an operator are not seen.
        with torch.no_grad(), Peak(tensors_of(network)) as peak:
            x = torch.empty(shape)
            beside = peak.now
            network(x)
        return peak.highest - beside


def peak_of_prediction(name, side):
    """Find the peak of predicting one image, in bytes; all but the network itself is done for real."""
    network, calls = create_model(name).eval(), []
    peak = Peak(tensors_of(network))

    def forward(x):
        calls.append((peak.now, tuple(x.shape)))
        return {output: x.new_zeros(len(x), 1, *x.shape[2:]) for output in network.outputs}

    network.forward = forward
    trimap = None if network.in_channels == 3 else np.ones((side, side), np.uint8)
    with peak:
        predict_alpha(network, np.zeros((side, side, 3), np.uint8), trimap)
    largest = max((shape for _, shape in calls), key=math.prod)
    return max(peak.highest, max(beside for beside, _ in calls) + peak_of_forward(name, largest))


def count(name):
    """Count all that is told of a network."""
    parameters, (small, large) = cost(name)
    return {
        "parameters": parameters,
        "multiply_adds_224": small,
        "multiply_adds_512": large,
        "training": peak_of_training(name),
        "prediction_512": peak_of_prediction(name, 512),
        "prediction_2048": peak_of_prediction(name, 2048),
    }


@click.command()
def main():
    """Write what the networks cost to where `dptmat models` reads it."""
    rows = {}
    for name in NAMES:
        rows[name] = count(name)
        click.echo(f"{name:34} " + "  ".join(f"{key} {value / 1e9:.3f}" for key, value in rows[name].items()))
    write_whole(COSTS, lambda file: file.write((json.dumps(rows, indent=1) + "\n").encode()))


if __name__ == "__main__":
    main()
