"""Settings that pre-training and fine-tuning share: names, defaults, units and limits."""

import dataclasses

from dptmat.config import settings as config
from dptmat.config.settings import setting
from dptmat.errors import UserError

# Headings of the help text.
DATA = "Data"
AUGMENT = "Augmentation"
MODEL = "Network and loss"
OPTIM = "Optimisation"
RUN = "Run"

LOSSES = ("l1", "comp", "lap")
AMP = ("auto", "bf16", "fp16", "off")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of any training run; a field that is given anew in a task's settings has another default there."""

    size: int = setting(224, "Side of the square input; a multiple of 32.", unit="PIXELS", low=64, group=DATA)
    seed: int = setting(0, "Seed of all randomness.", low=0, high=2**64 - 1, group=DATA)
    # Measured by benchmarks/loader.py on 2 CPU cores, whole pipeline: 757, 1098, 1124 and 1031 images/s with 1, 2, 3
    # and 4 threads; by benchmarks/throughput.py, MatteFormer: waited 0.4 % with 1 thread, 0.1 % with 2.
    threads: int = setting(
        0, "Threads that decode, per process; 0: all cores, shared among the processes.", low=0, group=DATA, free=True
    )
    # Likewise: 995, 1003, 997 and 1001 images/s with 1, 2, 3 and 4; waited 1.0 % with 1, 0.1 % with 2.
    prefetch: int = setting(2, "Micro-batches prepared ahead.", low=1, group=DATA, free=True)
    hw_decoder_load: float = setting(  # the default is DALI's
        0.65,
        "Share of the JPEGs that the GPU's own JPEG decoder takes, where it has one; its cores take the others.",
        unit="0..1",
        low=0.0,
        high=1.0,
        group=DATA,
        free=True,
    )
    quarantine: str = setting(
        "",
        "Files to leave out from the first step on, as listed in the quarantine.txt of another run.",
        unit="FILE",
        group=DATA,
        free=True,
    )
    max_bad: float = setting(
        0.01,
        "Largest share of the files that may turn out bad before the run stops; one always may.",
        unit="0..1",
        low=0.0,
        high=1.0,
        group=DATA,
        free=True,
    )

    rotation: float = setting(
        30.0, "Largest rotation to either side.", unit="DEGREES", low=0.0, high=180.0, group=AUGMENT
    )
    scale_min: float = setting(0.8, "Smallest magnification of an axis.", unit="FACTOR", low=0.1, group=AUGMENT)
    scale_max: float = setting(1.25, "Largest magnification of an axis.", unit="FACTOR", high=10.0, group=AUGMENT)
    shear: float = setting(10.0, "Largest shear to either side.", unit="DEGREES", low=0.0, high=80.0, group=AUGMENT)
    hflip: float = setting(0.5, "Chance of a horizontal flip.", unit="0..1", low=0.0, high=1.0, group=AUGMENT)
    vflip: float = setting(0.5, "Chance of a vertical flip.", unit="0..1", low=0.0, high=1.0, group=AUGMENT)
    hue: float = setting(
        40.0, "Largest rotation of the hue to either side.", unit="DEGREES", low=0.0, high=180.0, group=AUGMENT
    )

    model: str = setting("matteformer", "Network; dptmat models lists them.", unit="NAME", group=MODEL)
    trimap: bool = setting(True, "Whether the network sees the trimap (6 input channels) or not (3).", group=MODEL)
    losses: str = setting(
        "l1,comp,lap", f"Losses, separated by commas: {', '.join(LOSSES)}.", unit="NAMES", group=MODEL
    )

    init: str = setting(
        "random",
        "Weights to start from: random; timm (its ImageNet weights of the encoder); or a checkpoint of dptmat, of an "
        "official matting project, or of an encoder (Swin, SimMIM, MoBY, timm, torchvision).",
        unit="random|timm|FILE",
        group=MODEL,
    )
    load: str = setting(
        "all",
        "Which part of --init to load; all: the encoder, and the decoder where the file has one.",
        choices=("encoder", "all"),
        group=MODEL,
    )

    steps: int = setting(0, "Steps of the run; 0: as many as --epochs need.", low=0, group=OPTIM)
    batch_size: int = setting(512, "Samples per step over all processes.", low=2, group=OPTIM)
    micro_batch: int = setting(
        0,
        "Samples per process that pass through the network at once, and one of which is each one's background; "
        "0: as many as divide the process's share, up to 64.",
        low=0,
        group=OPTIM,
        free=True,
    )
    lr: float = setting(1.5e-4, "Peak learning rate.", low=0.0, group=OPTIM)
    warmup: float = setting(
        0.1, "Share of the steps with a linear warm-up; a cosine follows.", unit="0..1", low=0.0, high=1.0, group=OPTIM
    )
    beta1: float = setting(0.9, "First beta of AdamW.", unit="0..1", low=0.0, high=0.99999, group=OPTIM)
    beta2: float = setting(0.95, "Second beta of AdamW.", unit="0..1", low=0.0, high=0.99999, group=OPTIM)
    weight_decay: float = setting(0.05, "Weight decay of AdamW; norms and biases have none.", low=0.0, group=OPTIM)
    clip: float = setting(
        5.0, "Largest norm of the gradient; a larger one is scaled down; 0: no limit.", low=0.0, group=OPTIM
    )
    clip_factor: float = setting(
        0.0,
        "Largest norm of the gradient as a multiple of its running mean; a larger one is scaled down; 0: no limit.",
        low=0.0,
        group=OPTIM,
    )
    amp: str = setting(
        "auto",
        "Mixed precision; auto: bf16 where the GPU has it, fp16 on older ones, off on the CPU.",
        choices=AMP,
        group=OPTIM,
    )

    max_nonfinite: int = setting(
        10,
        "Steps in a row that may be left out, since loss or gradient are not finite, before the run stops.",
        unit="STEPS",
        low=1,
        group=OPTIM,
        free=True,
    )
    sync_bn: bool = setting(
        False, "Whether batch norm takes its means over all processes (GPUs only) or each over its own.", group=OPTIM
    )

    out: str = setting(
        dataclasses.MISSING, "Folder for checkpoints, log and pictures.", unit="DIR", group=RUN, free=True
    )
    device: str = setting(
        "auto",
        "Where to run; auto: on the GPU if there is one.",
        choices=("auto", "cpu", "cuda"),
        group=RUN,
        free=True,
    )
    grad_checkpointing: bool = setting(
        False,
        "Whether the encoder's blocks are computed again on the way back instead of kept: less memory, more time.",
        group=RUN,
        free=True,
    )
    compile: bool = setting(False, "Whether to compile the network with torch.compile.", group=RUN, free=True)
    log_every: int = setting(10, "Steps between two lines of the log.", unit="STEPS", low=1, group=RUN, free=True)
    save_every: int = setting(1000, "Steps between two checkpoints.", unit="STEPS", low=1, group=RUN, free=True)
    keep: int = setting(3, "Checkpoints kept, the newest ones.", low=1, group=RUN, free=True)
    resume: str = setting(
        "",
        "Go on with a run: auto (the newest whole checkpoint in --out, if any) or a checkpoint.",
        unit="auto|FILE",
        group=RUN,
        free=True,
    )

    def __post_init__(self):
        config.check(self)
        if self.size % 32:
            near = [size for size in (self.size // 32 * 32, self.size // 32 * 32 + 32) if size >= 64]
            raise UserError(f"--size {self.size} is not a multiple of 32; use {' or '.join(map(str, near))}")
        if self.scale_min > self.scale_max:
            raise UserError(f"--scale-min {self.scale_min} is more than --scale-max {self.scale_max}")
        names = self.losses.split(",")
        if set(names) - set(LOSSES) or len(set(names)) < len(names):
            raise UserError(f"--losses {self.losses}: choose from {', '.join(LOSSES)}, each once, separated by commas")
