"""Settings of a fine-tuning run: names, defaults, units and limits."""

import dataclasses

from dptmat.config.run import AUGMENT, DATA, MODEL, OPTIM, RUN, RunConfig
from dptmat.config.settings import setting
from dptmat.errors import UserError

VALIDATION = "Validation"  # heading of the help text


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(RunConfig):
    """Settings of a fine-tuning run; the defaults are the published ones."""

    fg: str = setting(
        dataclasses.MISSING, "Foreground colours: a folder, or a text file of paths.", unit="DIR|FILE", group=DATA,
        free=True,
    )  # fmt: skip
    alpha: str = setting(
        dataclasses.MISSING, "Their alpha mattes, of the same names.", unit="DIR|FILE", group=DATA, free=True
    )
    bg: str = setting(
        dataclasses.MISSING,
        "Backgrounds: a folder of photographs, nested or not, or a text file of paths.",
        unit="DIR|FILE",
        group=DATA,
        free=True,
    )
    size: int = setting(512, "Side of the square crops; a multiple of 32.", unit="PIXELS", low=64, group=DATA)

    combine: float = setting(
        0.5, "Chance that two foregrounds are combined.", unit="0..1", low=0.0, high=1.0, group=AUGMENT
    )
    squeeze: float = setting(
        0.25, "Chance that a foreground is resized to 640 x 640.", unit="0..1", low=0.0, high=1.0, group=AUGMENT
    )
    interpolation: bool = setting(
        True, "Whether the filter of each resampling is drawn, from nearest to Lanczos, or linear.", group=AUGMENT
    )
    trimap_width: int = setting(
        29, "Widest ellipse by which a trimap's known regions shrink; drawn from 1.", unit="PIXELS", low=1, high=255,
        group=AUGMENT,
    )  # fmt: skip
    hue: float = setting(
        40.0,
        "Largest rotation of the foreground's hue to either side, in whole degrees; saturation and value change too.",
        unit="DEGREES",
        low=0.0,
        high=180.0,
        group=AUGMENT,
    )

    init: str = setting(
        dataclasses.MISSING,
        "Weights to start from: a checkpoint of dptmat, of an official matting project, or of an encoder (Swin, "
        "SimMIM, MoBY, timm, torchvision); timm (its ImageNet weights of the encoder); or random.",
        unit="FILE|timm|random",
        group=MODEL,
    )
    whole: bool = setting(
        False,
        "Whether the losses also count the trimap's known regions, where an output is asked for them (as published by "
        "MG Matting and MatteFormer), or the unknown region alone (as in DPT).",
        group=MODEL,
    )

    steps: int = setting(200_000, "Steps of the run.", low=1, group=OPTIM)
    batch_size: int = setting(40, "Samples per step over all processes.", low=1, group=OPTIM)
    micro_batch: int = setting(
        0,
        "Samples per process that pass through the network at once; 0: as many as divide the process's share, up to "
        "10.",
        low=0,
        group=OPTIM,
        free=True,
    )
    lr: float = setting(4e-4, "Peak learning rate.", low=0.0, group=OPTIM)
    warmup: float = setting(
        0.025,
        "Share of the steps with a linear warm-up; a cosine follows. After three times as many steps finer alphas are "
        "put in place of coarser ones in the losses.",
        unit="0..1",
        low=0.0,
        high=1.0,
        group=OPTIM,
    )
    beta1: float = setting(0.5, "First beta of Adam.", unit="0..1", low=0.0, high=0.99999, group=OPTIM)
    beta2: float = setting(0.999, "Second beta of Adam.", unit="0..1", low=0.0, high=0.99999, group=OPTIM)
    weight_decay: float = setting(0.0, "Weight decay (of AdamW); norms and biases have none.", low=0.0, group=OPTIM)
    clip: float = setting(
        1e6, "Largest norm of the gradient; a larger one is scaled down; 0: no limit.", low=0.0, group=OPTIM
    )
    clip_factor: float = setting(
        2.0,
        "Largest norm of the gradient as a multiple of its running mean; a larger one is scaled down; 0: no limit.",
        low=0.0,
        group=OPTIM,
    )

    val_image: str = setting(
        "", "Images to judge the network by with every checkpoint.", unit="DIR|FILE", group=VALIDATION, free=True
    )
    val_trimap: str = setting("", "Their trimaps.", unit="DIR|FILE", group=VALIDATION, free=True)
    val_alpha: str = setting("", "Their true alphas.", unit="DIR|FILE", group=VALIDATION, free=True)
    save_every: int = setting(
        2000, "Steps between two checkpoints, and two validations.", unit="STEPS", low=1, group=RUN, free=True
    )

    def __post_init__(self):
        super().__post_init__()
        if not self.init:
            raise UserError("--init is empty; give a checkpoint, timm or random")
        if len({bool(self.val_image), bool(self.val_trimap), bool(self.val_alpha)}) > 1:
            raise UserError("--val-image, --val-trimap and --val-alpha belong together; give all three, or none")
        if self.model == "mgmatting_mask":
            raise UserError("--model mgmatting_mask is guided by masks, of which fine-tuning draws none; use mgmatting")
