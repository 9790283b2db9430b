"""Disentangled pre-training: photographs without labels in, a matting network out (Li et al., WACV 2024)."""

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dptmat.config.pretrain import PretrainConfig
from dptmat.config.settings import take_settings
from dptmat.contact_sheets import preview_sheet, show_views
from dptmat.data.matte_batch import ComposedBatch
from dptmat.data.pair_batch import AlphaRecipe, make_pair_batch, make_scene
from dptmat.data.photographs import PhotoIndex, open_photographs
from dptmat.data.sampler import Sampler
from dptmat.defaults import WITHOUT_TRIMAP
from dptmat.errors import UserError
from dptmat.kernels import Batch, synthesize
from dptmat.losses import keep_coarsest, matting_losses
from dptmat.pipelines.batches import Pairs, Views
from dptmat.pipelines.pretrain import PretrainSource
from dptmat.pipelines.pretrain_pairs import Pairing, PairSource
from dptmat.tasks.score import takes_trimap
from dptmat.tasks.validation import Validation
from dptmat.training import distributed
from dptmat.training.build import choose_augmentation, choose_micro_batch, fingerprint, make_loader, make_sampler
from dptmat.training.distributed import Process
from dptmat.training.quarantine import Quarantine, read_quarantine
from dptmat.training.resume import list_begun_with
from dptmat.training.run import Run, joined_processes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

DataT = TypeVar("DataT", bound="DataclassInstance")

_MICRO_BATCH = 64  # samples that pass through the network together, unless asked otherwise


def pretrain(settings: PretrainConfig | None = None, **options: Any) -> Path:
    """Pre-train a matting network on photographs without labels; see `dptmat.training.run.Run`.

    Args:
        settings: All settings; or
        options: Those that differ from the defaults, by name: ``pretrain(data="photos", out="runs/first")``.

    Returns:
        Path of the last checkpoint.

    Raises:
        UserError, OSError: Something that the user can mend, in one sentence.
        TypeError: Settings are given in neither or in both ways.
    """
    given = take_settings(PretrainConfig, settings, options, "pretrain")
    with joined_processes(given) as process:
        task = distributed.on_all_ranks(lambda: Pretraining(given, process))
        return Run(task, given, process).run()


class Pretraining:
    """What is trained on what, a `Task`: composites of photographs with random trimaps and alphas.

    Args:
        settings: Of the run.
        process: This one among those of the run.
        index: The photographs, where they are known already: a list may come from a pipe.

    Raises:
        UserError: There are no photographs or too few, or the batch does not divide among the processes.
    """

    preview_rows = 8

    def __init__(self, settings: PretrainConfig, process: Process, index: PhotoIndex | None = None) -> None:
        begun_with = list_begun_with(settings)
        self.index = index or open_photographs(settings.data, begun_with=begun_with, leave_out=settings.out)
        self.index.require_some_file(f"`data` {settings.data}")
        _require_two(self.index, settings.data)
        self._settings, self._process = settings, process
        self._spare: Batch | ComposedBatch | None = None  # the batch before, which nobody needs any more
        self.sampler = make_sampler(settings, process, self.index)
        # Two at least: each one's background is another of them.
        self.micro_batch = choose_micro_batch(settings, process.world_size, 2, _MICRO_BATCH)
        self.steps = settings.steps or settings.epochs * self.sampler.steps_per_epoch
        self.data_fingerprint = fingerprint(self.index, self.sampler)
        self.summary = f"{len(self.index)} photographs"
        self.source = _choose_source(self.index, self.sampler, settings)
        self._validation = Validation(settings, process)

    def batch(self, outputs: Views | Pairs) -> Batch | ComposedBatch:
        """Make the network's input and targets of one micro-batch; on the CPU over the memory of the one before."""
        whole = synthesize_batch(outputs, self._settings, self._spare)
        if self._process.device.type == "cpu":  # where fresh memory doubles the time
            self._spare = whole
        return whole if self._settings.trimap else dataclasses.replace(whole, input=whole.input[:, :3])

    def losses(self, outputs: dict[str, Tensor], batch: Batch | ComposedBatch, step: int) -> dict[str, Tensor]:
        """Compute the losses of the network's outputs, by name."""
        regions = None
        if self._settings.coarsest_everywhere:
            outputs, regions = keep_coarsest(outputs, batch.trimap == 1)
        return matting_losses(outputs, batch, self._settings.losses.split(","), regions, self._settings.compile)

    def preview(self, quarantine: Quarantine) -> np.ndarray:
        """Draw what the network sees in the first samples: uint8 [H, W, 3] RGB."""
        with contextlib.closing(make_loader(self, self._settings, self._process, 0, quarantine)) as loader:
            views = next(loader)
        batch = self.batch(views)
        if isinstance(batch, Batch):
            return preview_sheet(*show_views(views, batch.pairing), batch, self.preview_rows)
        scene = make_scene(views, _take_fields(AlphaRecipe, self._settings))
        return preview_sheet(scene.fg, scene.bg, batch, self.preview_rows)

    def validate(self, model: nn.Module, step: int) -> dict[str, float] | None:
        """Score the network on real mattes, if there are any; no best network is kept, since this tells of none.

        A network that takes trimaps, given as files or from the alphas, is also scored without them, on the whole
        images: names that end in ``_without_trimap``.

        Raises:
            UserError: None of the images can be scored, at the first time.
        """
        validation = self._validation
        if not validation.cases:
            return None
        scores = validation.score(model)
        if validation.trimaps == "all-unknown" or not takes_trimap(model):
            return scores
        without = validation.score_without_trimaps(model)
        return scores | {f"{name}{WITHOUT_TRIMAP}": value for name, value in without.items()}

    def finish(self) -> None:
        """Do nothing after the last step."""


def preview(settings: PretrainConfig) -> np.ndarray:
    """Draw what the network sees in the first samples of a run in one process; nothing is written.

    Args:
        settings: Of the run.

    Returns:
        uint8 [H, W, 3] RGB: a row per sample with foreground, background, trimap, alpha and composite.

    Raises:
        UserError: There are not two photographs, or a setting does not fit them.
    """
    index = open_photographs(settings.data)
    _require_two(index, settings.data)
    if settings.batch_size > len(index):
        few = min(_MICRO_BATCH, len(index))
        settings = dataclasses.replace(settings, batch_size=few, micro_batch=few)
    settings = dataclasses.replace(settings, val_image="", val_trimap="", val_alpha="")
    known = read_quarantine(settings.quarantine) if settings.quarantine else None
    process = distributed.single_process(settings.device)
    return Pretraining(settings, process, index).preview(Quarantine(known=known))


def _require_two(index: PhotoIndex, data: str) -> None:
    if len(index) < 2:
        raise UserError(f"`data` {data} holds one photograph; at least 2 are needed, one laid over the other")


def _choose_source(index: PhotoIndex, sampler: Sampler, settings: PretrainConfig) -> PretrainSource:
    """Choose what a sample is made of: a view and another one, or where they differ in more, a pair of photographs."""
    pairing, augmentation = _take_fields(Pairing, settings), choose_augmentation(settings)
    plain = Pairing("pairing", True, False, False, "hue")
    if pairing == plain and settings.alpha_levels == 256:
        return PretrainSource(index, sampler, augmentation, settings.size, settings.fit)
    return PairSource(index, sampler, augmentation, settings.size, settings.fit, pairing)


def _take_fields(cls: type[DataT], settings: PretrainConfig) -> DataT:
    """Make a dataclass whose fields are settings of these names."""
    return cls(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(cls)})


def synthesize_batch(
    views: Views | Pairs, settings: PretrainConfig, out: Batch | ComposedBatch | None = None
) -> Batch | ComposedBatch:
    """Make targets and input of one micro-batch, all six channels, as the settings say; on the CPU over ``out``."""
    if isinstance(views, Pairs):
        assert not isinstance(out, Batch)  # a run makes one kind
        return make_pair_batch(views, _take_fields(AlphaRecipe, settings), out)
    assert not isinstance(out, ComposedBatch)
    return synthesize(
        views.views, views.ids, settings.seed, views.color,
        cell=settings.cell, unknown=settings.unknown, foreground=settings.foreground, mode=settings.alpha_mode,
        memory_format=torch.channels_last, out=out,
    )  # fmt: skip
