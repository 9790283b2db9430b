"""The ranges of random changes as the settings of a run give them."""

import dataclasses
from typing import Any

from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.pipelines.augment import Augmentation
from dptmat.pipelines.crop_window import Recipe


def make_augmentation(**ranges: float) -> Augmentation:
    """Make the augmentation of a pre-training with these settings."""
    settings = PretrainConfig(data="unused", out="unused", **ranges)
    return Augmentation(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Augmentation)})


def make_recipe(augmentation: Augmentation | None = None, **settings: Any) -> Recipe:
    """Make the recipe of a fine-tuning with these settings."""
    config = FinetuneConfig(fg="unused", alpha="unused", bg="unused", init="random", out="unused", **settings)
    return Recipe(
        augmentation or make_augmentation(),
        combine=config.combine,
        squeeze=config.squeeze,
        interpolation=config.interpolation,
        trimap_width=config.trimap_width,
        hue=round(config.hue),
    )
