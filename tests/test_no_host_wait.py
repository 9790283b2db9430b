"""Nothing of a step makes the host wait for the GPU: then the GPU always has work, and data are made ahead of it.

Without a GPU, tensors that have a device and a shape but no values show it: they cannot answer where a value is asked
for, and every copy between host and device is seen.
"""

import contextlib

import cv2
import pytest
import torch
from mattes import shades, write_mattes
from ranges import make_recipe
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from without_gpu import empty, empty_layers, without_values

from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.data.matte_batch import make_matte_batch
from dptmat.defaults import LOSSES
from dptmat.kernels import synthesize
from dptmat.losses import matting_losses, refine
from dptmat.models import create_model
from dptmat.pipelines.crop_window import REFINE_OS1, REFINE_OS4
from dptmat.tasks.finetune import Finetuning
from dptmat.tasks.pretrain import Pretraining
from dptmat.training.averages import Averages
from dptmat.training.build import make_loader, make_trainer
from dptmat.training.distributed import single_process
from dptmat.training.optim import clip_gradients
from dptmat.training.quarantine import Quarantine, name_bad
from dptmat.training.trainer import Buffers

NETWORKS = "matteformer", "gca", "mgmatting", "unet_resnet18", "unet_swin_tiny_patch4_window7_224"


class NoCopies(TorchDispatchMode):
    """Refuses operators whose tensors lie on different devices, but for a number of the host that goes along as one."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = operator(*args, **(kwargs or {}))
        copies = "copy" in str(operator)
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        assert len({x.device.type for x in tensors if x.ndim or copies}) <= 1, operator
        return result


@contextlib.contextmanager
def watched_without_a_gpu(network=None):
    """Waits for tensors without values are refused."""
    with without_values(network), NoCopies():
        yield


@pytest.mark.parametrize("wait", [float, lambda x: x[x > 0], lambda x: x * torch.tensor(2.0).to("cuda"), torch.nonzero])
def test_a_wait_is_seen(wait):
    refusals = AssertionError, DataDependentOutputException, DynamicOutputShapeException
    with watched_without_a_gpu(), pytest.raises(refusals):
        wait(empty(1, dtype=torch.float32))


@contextlib.contextmanager
def autocast_without_a_gpu(dtype):
    """What ``torch.autocast`` does, which declines where there is no GPU."""
    former = torch.get_autocast_dtype("cuda")
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_enabled("cuda", dtype is not torch.float32)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", former)
        torch.clear_autocast_cache()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_networks_and_their_losses(name, dtype):
    network = create_model(name, 6).train()
    seen = []
    network.decoder.layer1[0].conv2.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    with watched_without_a_gpu(network):
        batch = synthesize(empty(4, 224, 224, 3), empty(4, dtype=torch.int64), 0, empty(4, 3, 3, dtype=torch.float32))
        with autocast_without_a_gpu(dtype):
            outputs = network(batch.input)
        losses = matting_losses(outputs, batch, LOSSES)
        assert seen == [dtype]
        assert all(loss.device.type == "cuda" for loss in losses.values())


def test_composition_and_refinement_of_fine_tuning():
    recipe = make_recipe()
    with watched_without_a_gpu():
        batch = make_matte_batch(empty_layers(4, 128, recipe.margin), recipe)
        outputs = {f"alpha_os{stride}": empty(4, 1, 128, 128, dtype=torch.float32) for stride in (1, 4, 8)}
        fused, regions = refine(outputs, batch.widths, (REFINE_OS4, REFINE_OS1), 640)
        assert matting_losses(fused, batch, LOSSES, regions)["lap"].device.type == "cuda"


def test_clipping_and_what_is_kept_of_a_step():
    network = torch.nn.BatchNorm2d(3)
    with watched_without_a_gpu(network):
        for parameter in network.parameters():
            parameter.grad = torch.empty_like(parameter)
        norm = clip_gradients(network.parameters(), 5.0, 2.0, empty(dtype=torch.float32))
        buffers, skipped = Buffers(network), ~norm.isfinite()
        buffers.note()
        buffers.put_back_if(skipped)
        Averages(0).add({"loss": norm, "grad_norm": norm}, torch.stack([skipped, skipped]))


def pretraining(photographs, tmp_path, **options):
    return Pretraining, PretrainConfig(data=str(photographs), out=str(tmp_path), **options)


def finetuning(photographs, tmp_path, **options):
    fg, alpha = write_mattes(tmp_path, [(200, 240), (180, 300), (260, 160)])
    (tmp_path / "bg").mkdir()
    for i in range(16):
        cv2.imwrite(str(tmp_path / f"bg/{i}.png"), shades(200, 220, 10 + i))
    files = {"fg": str(fg), "alpha": str(alpha), "bg": str(tmp_path / "bg"), "out": str(tmp_path)}
    return Finetuning, FinetuneConfig(**files, init="random", warmup=0.0, **options)


def make_step(task_of, settings, scaler=None):
    """Function that takes the step of a number, after the first one has been taken: it compiles and allocates."""
    process = single_process(settings.device)
    task = task_of(settings, process)
    trainer = make_trainer(task, settings, process)
    trainer._scaler = scaler or trainer._scaler
    batches = map(task.batch, make_loader(task, settings, process, 0, Quarantine(name_bad)))
    trainer.step(0, batches)
    return lambda number: trainer.step(number, batches)


class NoReads(TorchDispatchMode):
    """Refuses operators that look at values on the host's behalf."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        assert not any(word in str(operator) for word in ("local_scalar", "nonzero", "masked_select")), operator
        return operator(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pretraining, finetuning])
@pytest.mark.parametrize(("amp", "scaled"), [("off", False), ("bf16", False), ("off", True)])
def test_whole_steps_read_no_value(photographs, tmp_path, kind, amp, scaled):
    """With the way back and the optimiser, which tensors without values cannot go through, and float16's scale."""
    options = {"device": "cpu", "model": "unet_resnet10t", "size": 64, "batch_size": 4, "micro_batch": 2, "amp": amp}
    step = make_step(*kind(photographs, tmp_path, **options), torch.amp.GradScaler("cpu") if scaled else None)
    with NoReads():
        step(1)
        with pytest.raises(AssertionError, match="local_scalar"):
            torch.ones(1).item()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [pretraining, finetuning])
@pytest.mark.parametrize("amp", ["auto", "fp16"])
@pytest.mark.parametrize("model", NETWORKS[:4])
def test_gpu_whole_steps(photographs, tmp_path, kind, amp, model):
    options = {"device": "cuda", "model": model, "size": 96, "batch_size": 8, "micro_batch": 4, "amp": amp}
    step = make_step(*kind(photographs, tmp_path, **options))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in (1, 2, 3):
            step(number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
