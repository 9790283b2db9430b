"""The parts of a run, made from its settings: augmentation, micro-batch, loader, trainer."""

import dataclasses
import logging
import math
from collections.abc import Callable

import torch
from timm.layers import convert_sync_batchnorm

from dptmat.config.milestones import read_milestones
from dptmat.config.run import RunConfig
from dptmat.data.photographs import PhotoIndex
from dptmat.data.sampler import Sampler
from dptmat.data.shards import ShardIndex
from dptmat.errors import UserError
from dptmat.models import create_model
from dptmat.models.layers import MattingNetwork
from dptmat.pipelines.augment import Augmentation
from dptmat.pipelines.loader import Loader
from dptmat.training.checkpoint import MOST_STEPS
from dptmat.training.distributed import Process
from dptmat.training.optim import adamw, learning_rate, learning_rate_at_milestones, learning_rate_of_epoch
from dptmat.training.quarantine import Quarantine
from dptmat.training.task import Task
from dptmat.training.trainer import Trainer

_logger = logging.getLogger(__name__)

_MOST_THREADS = 16  # that decode on one GPU, unless more are asked for


def choose_augmentation(settings: RunConfig) -> Augmentation:
    """Take the ranges of the random changes from the settings of any task."""
    return Augmentation(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Augmentation)})


def choose_micro_batch(settings: RunConfig, processes: int, smallest: int, usual: int) -> int:
    """Choose the number of samples that one process sends through the network together.

    Args:
        settings: With ``micro_batch``, 0 to choose, and ``batch_size``.
        processes: Number of them.
        smallest: Smallest number that works.
        usual: Largest that is chosen unasked.

    Raises:
        UserError: The one that is asked for does not divide a process's share of the batch, or none does.
    """
    share = settings.batch_size // processes
    fitting = [size for size in range(smallest, share + 1) if share % size == 0]
    if settings.micro_batch in fitting:
        return settings.micro_batch
    small = [size for size in fitting if size <= usual]
    if settings.micro_batch or not small:
        choices = f"`micro_batch` {', '.join(map(str, fitting))}" if fitting else "a larger `batch_size`"
        raise UserError(
            f"`micro_batch` {settings.micro_batch} does not fit `batch_size` {settings.batch_size}, of which each of "
            f"{processes} processes has {share}; use {choices}"
        )
    return small[-1]


def make_sampler(settings: RunConfig, process: Process, index: PhotoIndex) -> Sampler:
    """Make the order of the photographs, and let what is read in blocks be kept as long as it takes to show them.

    Raises:
        UserError: The batch does not divide among the processes, or there are too few photographs for one.
    """
    in_blocks = settings.order == "blocks" or (settings.order == "auto" and index.prefers_blocks)
    rank, world_size = process.rank, process.world_size
    sampler = Sampler(settings.seed, len(index), settings.batch_size, rank, world_size, in_blocks)
    if isinstance(index, ShardIndex):
        if in_blocks:
            index.keep_blocks(sampler.block, sampler.blocks_at_once)
        if process.is_main and index.short_side < settings.size:
            _logger.warning(
                "the photographs were packed with %s pixels on the shorter side, and are enlarged to %s; pack them "
                "anew by dptmat pack --short-side %s for more detail", index.short_side, settings.size, settings.size,
            )  # fmt: skip
    return sampler


def fingerprint(index: PhotoIndex, sampler: Sampler) -> dict[str, int | str]:
    """Tell what the photographs are, and in which order: equal in a run that goes on."""
    order = {"order": "blocks"} if sampler.in_blocks else {}
    return {"count": len(index), "digest": index.digest(), **order}


def choose_threads(process: Process) -> int:
    """Choose how many threads read and decode: a GPU's decoder takes 32 MiB for each, half of them on the GPU."""
    return process.cores if process.device.type == "cpu" else min(process.cores, _MOST_THREADS)


def make_loader(task: Task, settings: RunConfig, process: Process, start: int, quarantine: Quarantine) -> Loader:
    """Make the loader of a task's batches, from a step on."""
    return Loader(
        task.source,
        task.sampler,
        micro_batch=task.micro_batch,
        device=process.device,
        threads=settings.threads or choose_threads(process),
        prefetch=settings.prefetch,
        hw_decoder_load=settings.hw_decoder_load,
        start=start,
        quarantine=quarantine,
    )


def _choose_schedule(task: Task, settings: RunConfig) -> Callable[[int], float]:
    """Choose the learning rate as a function of the step."""
    warmup = round(settings.warmup * task.steps)
    if settings.schedule == "step":
        return lambda step: learning_rate(step, task.steps, warmup, settings.lr)
    if settings.schedule == "milestones":
        milestones = read_milestones(settings.milestones)
        return lambda step: learning_rate_at_milestones(step, task.steps, warmup, settings.lr, milestones)
    of_epoch = task.sampler.steps_per_epoch
    epochs = math.ceil(task.steps / of_epoch)
    warmup_epochs = round(settings.warmup * epochs)
    return lambda step: learning_rate_of_epoch(step // of_epoch, epochs, warmup_epochs, settings.lr)


def _make_optimizer(model: MattingNetwork, settings: RunConfig) -> torch.optim.AdamW:
    """Make the optimizer of a network.

    Raises:
        UserError: Its rates should fall towards the input, but the network has no layers for that.
    """
    layers = model.layers() if settings.layer_decay != 1 else []
    if settings.layer_decay != 1 and not layers:
        raise UserError(
            f"`layer_decay` {settings.layer_decay} needs an encoder in layers, which {settings.model} has not; leave "
            "it out, or take matteformer, vitmatte_small, unet_NAME or vit_NAME"
        )
    betas = settings.beta1, settings.beta2
    return adamw(model, settings.weight_decay, betas, settings.decay_all, layers, settings.layer_decay)


def make_trainer(task: Task, settings: RunConfig, process: Process) -> Trainer:
    """Make the trainer of a task, with a new network.

    Raises:
        UserError: There is no such network, an option needs a GPU, or the run has more steps than there can be.
    """
    if task.steps >= MOST_STEPS:
        raise UserError(f"the epochs come to {task.steps} steps; a run has less than {MOST_STEPS}, so lower `epochs`")
    torch.manual_seed(settings.seed)
    model = create_model(settings.model, 6 if settings.trimap else 3, settings.grad_checkpointing)
    if settings.sync_bn:
        if process.device.type == "cpu":
            raise UserError("`sync_bn` needs GPUs: PyTorch has no synchronized batch norm on the CPU; leave it out")
        if process.world_size > 1:
            model = convert_sync_batchnorm(model)
    model = model.to(process.device).to(memory_format=torch.channels_last)  # what tensor cores convolve fastest
    return Trainer(
        model,
        task.losses,
        _make_optimizer(model, settings),
        _choose_schedule(task, settings),
        process,
        seed=settings.seed,
        accumulate=settings.batch_size // process.world_size // task.micro_batch,
        clip=settings.clip or math.inf,
        clip_factor=settings.clip_factor or math.inf,
        amp=settings.amp,
        compile=settings.compile,
    )
