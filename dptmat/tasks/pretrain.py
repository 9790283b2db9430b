"""Disentangled pre-training: photographs without labels in, a matting network out (Li et al., WACV 2024)."""

import dataclasses
from pathlib import Path

import torch

from dptmat.contact_sheets import preview_sheet
from dptmat.data.index import ImageIndex
from dptmat.data.sampler import Sampler
from dptmat.errors import UserError
from dptmat.kernels import synthesize
from dptmat.losses import matting_losses
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.training import distributed
from dptmat.training.quarantine import Quarantine, name_bad
from dptmat.training.run import FILES, choose_augmentation, choose_micro_batch, make_loader, run

_MICRO_BATCH = 64  # samples that pass through the network at once, unless asked otherwise


def pretrain(settings):
    """Run a pre-training from its settings to its last checkpoint; see `dptmat.training.run.run`."""
    return run(Pretraining, settings)


class Pretraining:
    """What is trained on what: composites of photographs with random trimaps and alphas.

    Args:
        settings: ``PretrainConfig``.
        process: The processes of the run.
    """

    pictured = 8  # samples in a picture

    def __init__(self, settings, process):
        self.index = index = ImageIndex.open(settings.data, begun_with=settings.resume and Path(settings.out) / FILES)
        self._settings, self._process = settings, process
        self.sampler = Sampler(settings.seed, len(index), settings.batch_size, process.rank, process.world_size)
        # Two at least: each one's background is another of them.
        self.micro_batch = choose_micro_batch(settings, process.world_size, 2, _MICRO_BATCH)
        self.steps = settings.steps or settings.epochs * self.sampler.steps_per_epoch
        self.photographs = {"count": len(index), "digest": index.digest()}
        self.about = f"{len(index)} photographs"
        self.source = PretrainSource(index, self.sampler, choose_augmentation(settings), settings.size)

    def batch(self, views):
        """The network's input and targets of one micro-batch of ``Views``: a ``Batch``."""
        return synthesize_batch(views, self._settings)

    def losses(self, outputs, batch, step):
        """Losses of the network's outputs, by name."""
        return matting_losses(outputs, batch, self._settings.losses.split(","))

    def preview(self, quarantine):
        """What the network sees in the first samples: uint8 [H, W, 3] RGB."""
        views = next(make_loader(self, self._settings, self._process, 0, quarantine))
        return preview_sheet(views, self.batch(views), self.pictured)

    def validate(self, model, step, progress):
        """Judge the network: nothing here, since its alphas are made up."""

    def finish(self):
        """Do what comes after the last step: nothing."""


def preview(settings):
    """What the network sees in the first samples of a run in one process.

    Args:
        settings: ``PretrainConfig``; nothing is written.

    Returns:
        uint8 [H, W, 3] RGB: a row per sample with foreground, background, trimap, alpha and composite.
    """
    count = len(ImageIndex.open(settings.data))
    if count < 2:
        raise UserError(f"--data {settings.data} holds one photograph; at least 2 are needed, one laid over the other")
    if settings.batch_size > count:
        few = min(_MICRO_BATCH, count)
        settings = dataclasses.replace(settings, batch_size=few, micro_batch=few)
    return Pretraining(settings, distributed.single_process(settings.device)).preview(Quarantine(name_bad))


def synthesize_batch(views, settings):
    """The network's input and targets of one micro-batch of ``Views``: a ``Batch``."""
    batch = synthesize(
        views.views, views.ids, settings.seed, views.color,
        cell=settings.cell, unknown=settings.unknown, foreground=settings.foreground, mode=settings.alpha_mode,
        memory_format=torch.channels_last,
    )  # fmt: skip
    return batch if settings.trimap else dataclasses.replace(batch, input=batch.input[:, :3])
