"""Settings of a fine-tuning run: names, defaults, units and limits."""

import dataclasses

from dptmat.config.run import AUGMENTATION, DATA, MODEL, OPTIMIZATION, OUTPUT, RunConfig
from dptmat.config.settings import setting
from dptmat.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """Settings of a fine-tuning run; the defaults are the published ones."""

    data: str = setting(
        "",
        "A training set of a known layout, P3M-10k or AM-2k; the next two win over it.",
        unit="DIR",
        group=DATA,
        changeable_on_resume=True,
    )
    fg: str = setting(
        "",
        "Foregrounds, their colors: a folder, or a text file with a path per line; or cut-outs, with alpha channels.",
        unit="DIR|FILE", group=DATA, changeable_on_resume=True,
    )  # fmt: skip
    alpha: str = setting(
        "", "Their alpha mattes, files of the same names; needless where the foregrounds are cut-outs.",
        unit="DIR|FILE", group=DATA, changeable_on_resume=True,
    )  # fmt: skip
    bg: str = setting(
        dataclasses.MISSING,
        "Backgrounds: photographs, as pretrain --data takes them.",
        unit="DIR|FILE|URL",
        group=DATA,
        changeable_on_resume=True,
    )
    size: int = setting(
        512, "Side of the square crops; a multiple of 32.", unit="PIXELS", low=64, high=8192, group=DATA
    )

    init: str = setting(
        dataclasses.MISSING,
        "Weights to start from: a checkpoint of dptmat, of an official matting project, or of an encoder (Swin, "
        "SimMIM, MoBY, DINO, MAE, timm, torchvision), also on the Hub; timm (ImageNet weights of the encoder); random.",
        unit="FILE|hf://USER/NAME|timm|random",
        group=MODEL,
    )
    whole: bool = setting(
        False,
        "Count the trimap's known regions in the losses, too, where an output is asked for them (as published by "
        "MG Matting and MatteFormer), or the unknown region alone (as in DPT).",
        group=MODEL,
    )

    steps: int = setting(200_000, "Optimizer steps of the run.", low=1, high=10**9 - 1, group=OPTIMIZATION)
    batch_size: int = setting(
        40, "Samples per optimizer step, over all processes and micro-batches.", unit="SAMPLES", low=1,
        high=2**20, group=OPTIMIZATION,
    )  # fmt: skip
    micro_batch: int = setting(
        0,
        "Samples that one process sends through the network together; gradients are accumulated over the micro-batches "
        "of a step. Lower it if the memory runs out. 0: the largest up to 10 that divides the process's share.",
        unit="SAMPLES",
        low=0,
        group=OPTIMIZATION,
        changeable_on_resume=True,
    )
    lr: float = setting(4e-4, "Peak learning rate.", low=0.0, group=OPTIMIZATION)
    warmup: float = setting(
        0.025,
        "Share of the steps in which the learning rate rises linearly; the schedule follows. After three times as "
        "many steps finer alphas are put in place of coarser ones in the losses.",
        unit="0..1",
        low=0.0,
        high=1.0,
        group=OPTIMIZATION,
    )
    weight_decay: float = setting(
        0.0, "Weight decay of AdamW; norms and biases are not decayed; 0 makes it Adam.", low=0.0, group=OPTIMIZATION
    )
    beta1: float = setting(
        0.5, "Beta 1 of Adam, of the mean of the gradients.", unit="0..1", low=0.0, high=0.99999, group=OPTIMIZATION
    )
    beta2: float = setting(
        0.999, "Beta 2 of Adam, of the mean of their squares.", unit="0..1", low=0.0, high=0.99999, group=OPTIMIZATION
    )
    clip: float = setting(
        1e6, "Gradient clipping: largest global norm; 0: no limit.", unit="NORM", low=0.0, group=OPTIMIZATION
    )
    clip_factor: float = setting(
        2.0,
        "Gradient clipping: largest global norm as a multiple of its running mean; 0: no limit.",
        unit="FACTOR",
        low=0.0,
        group=OPTIMIZATION,
    )

    combine: float = setting(
        0.5, "Probability that two foregrounds are combined into one.", unit="0..1", low=0.0, high=1.0,
        group=AUGMENTATION,
    )  # fmt: skip
    squeeze: float = setting(
        0.25, "Probability that a foreground is resized to 640x640, whatever its shape.", unit="0..1", low=0.0,
        high=1.0, group=AUGMENTATION,
    )  # fmt: skip
    interpolation: bool = setting(
        True, "Draw the filter of each resampling, from nearest to Lanczos, or take the linear one.",
        group=AUGMENTATION,
    )  # fmt: skip
    trimap_width: int = setting(
        29, "Widest ellipse by which the known regions of a trimap are eroded; drawn from 1.", unit="PIXELS", low=1,
        high=255, group=AUGMENTATION,
    )  # fmt: skip
    hue: float = setting(
        40.0,
        "Largest rotation of the foreground's hue to either side, in whole degrees; saturation and value change too.",
        unit="DEGREES",
        low=0.0,
        high=180.0,
        group=AUGMENTATION,
    )

    save_every: int = setting(
        2000, "Steps between two checkpoints, and two validations.", unit="STEPS", low=1, group=OUTPUT,
        changeable_on_resume=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.data or self.fg):
            raise UserError("missing: `fg`; give the foregrounds, or as `data` a training set of a known layout")
        if not self.init:
            raise UserError("`init` is empty; give a checkpoint, timm or random")
        if self.model == "mgmatting_mask":
            raise UserError("`model` mgmatting_mask is guided by masks, of which fine-tuning draws none; use mgmatting")
