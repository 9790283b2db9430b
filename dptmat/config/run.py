"""Settings that pre-training and fine-tuning share: names, defaults, units and limits."""

import dataclasses

from dptmat.config.milestones import read_milestones
from dptmat.config.settings import check, setting
from dptmat.defaults import DEVICES, LOSSES, PRECISIONS, TRACKERS
from dptmat.errors import UserError

# Headings of the help text.
DATA = "Data"
METHOD = "Trimap and alpha"
VALIDATION = "Validation"
MODEL = "Network and loss"
OPTIMIZATION = "Optimization"
AUGMENTATION = "Augmentation"
OUTPUT = "Output and resuming"
HARDWARE = "Hardware and speed"
FAULTS = "Damaged files and failed steps"
# The order in which a user thinks of them.
GROUPS = (DATA, METHOD, MODEL, OUTPUT, OPTIMIZATION, VALIDATION, AUGMENTATION, HARDWARE, FAULTS)
LEADING = ("data", "fg", "alpha", "bg", "out", "model", "init", "epochs", "steps")  # the first ones of their groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings of any training run; a field that is given anew in a task's settings has another default there."""

    size: int = setting(
        224, "Side of the square images that the network is trained on; a multiple of 32.", unit="PIXELS", low=64,
        high=8192, group=DATA,
    )  # fmt: skip
    seed: int = setting(
        0, "Seed of everything random; equal seeds and settings give equal runs.", low=0, high=2**64 - 1, group=DATA
    )
    order: str = setting(
        "auto",
        "Order of the photographs: full, in which any can follow any other; or blocks of up to 256 that lie together, "
        "each shown at one place of the batch, so that an object store is asked for a few large pieces; a rank holds "
        "8 MB per sample of its batch for it, and up to an eighth of the photographs, others in each epoch, is left "
        "out. auto: blocks for shards in an object store, else full.",
        choices=("auto", "full", "blocks"),
        group=DATA,
        changeable_on_resume=True,  # as given; what it comes to is compared apart
    )

    model: str = setting(
        "matteformer",
        "Network: matteformer, gca, mgmatting, vitmatte_small, unet_NAME, vit_NAME; dptmat models lists them.",
        unit="NAME",
        group=MODEL,
    )  # fmt: skip
    init: str = setting(
        "random",
        "Weights to start from: random; timm (ImageNet weights of the encoder); or a checkpoint of dptmat, of "
        "an official matting project, or of an encoder (Swin, SimMIM, MoBY, DINO, MAE, timm, torchvision), or on the "
        "Hub.",
        unit="random|timm|FILE|hf://USER/NAME",
        group=MODEL,
    )
    load: str = setting(
        "all",
        "Part of the init weights to load; all: the encoder, and the decoder where the file has one.",
        choices=("encoder", "all"),
        group=MODEL,
    )
    trimap: bool = setting(
        True, "Show the network the trimap (6 input channels), or the image alone (3 channels).", group=MODEL
    )
    losses: str = setting(
        "l1,comp,lap",
        f"Losses to add up, separated by commas: {', '.join(LOSSES)}. The unknown region's absolute "
        "error, composition, Laplacian, and gradients with their penalty; the known region's absolute error; the "
        "Laplacian over the whole image. ViTMatte: l1,l1_known,lap_whole,grad.",
        unit="NAMES",
        group=MODEL,
    )

    steps: int = setting(
        0, "Optimizer steps of the run; 0: as many as the epochs need.", low=0, high=10**9 - 1, group=OPTIMIZATION
    )
    batch_size: int = setting(
        512, "Samples per optimizer step, over all processes and micro-batches.", unit="SAMPLES", low=2,
        high=2**20, group=OPTIMIZATION,
    )  # fmt: skip
    micro_batch: int = setting(
        0,
        "Samples that one process sends through the network together; gradients are accumulated over the micro-batches "
        "of a step. Lower it if the memory runs out. 0: the largest up to 64 that divides the process's share. A "
        "sample's background is another sample of its micro-batch.",
        unit="SAMPLES",
        low=0,
        group=OPTIMIZATION,
        changeable_on_resume=True,  # as given; what it comes to is compared apart
    )
    # Of the authors' released code, whose batch is 512, too: our copy of the paper does not tell it.
    lr: float = setting(3e-4, "Peak learning rate.", low=0.0, group=OPTIMIZATION)
    warmup: float = setting(
        0.1, "Share of the steps in which the learning rate rises linearly; the schedule follows.", unit="0..1",
        low=0.0, high=1.0, group=OPTIMIZATION,
    )  # fmt: skip
    schedule: str = setting(
        "step",
        "After the warm-up, a cosine to 0 that changes the learning rate with each step; or with each epoch (DPT's "
        "released code), where warm-up and cosine count whole epochs and the epoch after the last one would have rate "
        "0; or a constant rate that changes at milestones.",
        choices=("step", "epoch", "milestones"),
        group=OPTIMIZATION,
    )
    milestones: str = setting(
        "",
        "For that schedule: shares of the run, each with the factor of the peak from there on, such as "
        "0.3:0.1,0.9:0.05 (a tenth from 30 % on, a twentieth from 90 % on).",
        unit="SHARE:FACTOR,...",
        group=OPTIMIZATION,
    )
    layer_decay: float = setting(
        1.0,
        "Learning rate of each of the encoder's layers as a multiple of that of the next one, the decoder having the "
        "full rate; 1: the same rate for all. For networks with layers of transformers, and unet_.",
        unit="FACTOR",
        low=0.01,
        high=1.0,
        group=OPTIMIZATION,
    )
    weight_decay: float = setting(0.05, "Weight decay of AdamW.", low=0.0, group=OPTIMIZATION)
    decay_all: bool = setting(
        False,
        "Decay all parameters, as DPT's released code does, or all but norms, biases and tables of position biases.",
        group=OPTIMIZATION,
    )
    beta1: float = setting(
        0.9, "Beta 1 of AdamW, of the mean of the gradients.", unit="0..1", low=0.0, high=0.99999, group=OPTIMIZATION
    )
    beta2: float = setting(
        0.95, "Beta 2 of AdamW, of the mean of their squares.", unit="0..1", low=0.0, high=0.99999, group=OPTIMIZATION
    )
    clip: float = setting(
        5.0, "Gradient clipping: largest global norm; 0: no limit.", unit="NORM", low=0.0, group=OPTIMIZATION
    )
    clip_factor: float = setting(
        0.0,
        "Gradient clipping: largest global norm as a multiple of its running mean; 0: no limit.",
        unit="FACTOR",
        low=0.0,
        group=OPTIMIZATION,
    )

    val_image: str = setting(
        "", "Images to score the network on at the start and with every checkpoint.", unit="DIR|FILE",
        group=VALIDATION, changeable_on_resume=True,
    )  # fmt: skip
    val_trimap: str = setting(
        "", "Their trimaps; or all-unknown or from-alpha, as for dptmat evaluate.", unit="DIR|FILE", group=VALIDATION,
        changeable_on_resume=True,
    )  # fmt: skip
    val_alpha: str = setting("", "Their true alphas.", unit="DIR|FILE", group=VALIDATION, changeable_on_resume=True)

    rotation: float = setting(
        30.0, "Largest rotation to either side.", unit="DEGREES", low=0.0, high=180.0, group=AUGMENTATION
    )
    scale_min: float = setting(
        0.8, "Smallest magnification of width or height.", unit="FACTOR", low=0.1, high=10.0, group=AUGMENTATION
    )
    scale_max: float = setting(
        1.25, "Largest magnification of width or height.", unit="FACTOR", low=0.1, high=10.0, group=AUGMENTATION
    )
    shear: float = setting(
        10.0, "Largest shear to either side.", unit="DEGREES", low=0.0, high=80.0, group=AUGMENTATION
    )
    hflip: float = setting(0.5, "Probability of a horizontal flip.", unit="0..1", low=0.0, high=1.0, group=AUGMENTATION)
    vflip: float = setting(0.5, "Probability of a vertical flip.", unit="0..1", low=0.0, high=1.0, group=AUGMENTATION)
    hue: float = setting(
        40.0, "Largest rotation of the hue to either side.", unit="DEGREES", low=0.0, high=180.0, group=AUGMENTATION
    )

    out: str = setting(
        dataclasses.MISSING, "Folder for checkpoints, log and previews; made if missing.", unit="DIR", group=OUTPUT,
        changeable_on_resume=True,
    )  # fmt: skip
    resume: str = setting(
        "",
        "Go on with a run: auto (from the newest whole checkpoint in its output folder, or from the start if there is "
        "none) or the path of a checkpoint.",
        unit="auto|FILE",
        group=OUTPUT,
        changeable_on_resume=True,
    )
    save_every: int = setting(
        1000,
        "Steps between two checkpoints, and two validations.",
        unit="STEPS",
        low=1,
        group=OUTPUT,
        changeable_on_resume=True,
    )
    keep: int = setting(
        3, "Number of checkpoints that are kept, the newest.", low=1, group=OUTPUT, changeable_on_resume=True
    )
    log_every: int = setting(
        10, "Steps between two lines of the log.", unit="STEPS", low=1, group=OUTPUT, changeable_on_resume=True
    )

    track: str = setting(
        "none",
        "Tracker that gets the run's settings and curves beside TensorBoard: wandb (Weights & Biases; offline without "
        "a login or with WANDB_MODE=offline) or trackio (on this machine). What it writes lies in the output folder.",
        choices=TRACKERS,
        group=OUTPUT,
        changeable_on_resume=True,
    )

    device: str = setting(
        "auto", "Where to train; auto: on the GPU if there is one.", choices=DEVICES, group=HARDWARE,
        changeable_on_resume=True,
    )  # fmt: skip
    amp: str = setting(
        "auto",
        "Mixed precision; auto: bf16 where the GPU has it, fp16 on older ones, off on the CPU.",
        choices=PRECISIONS,
        group=HARDWARE,
    )
    grad_checkpointing: bool = setting(
        False,
        "Gradient (activation) checkpointing: compute the encoder's activations again in the backward pass instead of "
        "keeping them; less memory, more time, the same gradients.",
        group=HARDWARE,
        changeable_on_resume=True,
        formerly="recompute",
    )
    compile: bool = setting(
        False,
        "Compile the network's blocks and the Laplacian loss with torch.compile: faster steps after a first one of "
        "minutes; losses differ in the last digits.",
        group=HARDWARE,
        changeable_on_resume=True,
    )
    sync_bn: bool = setting(
        False,
        "Batch norm over the samples of all processes (GPUs only) instead of each process's own. PyTorch's waits for "
        "the GPU in every such layer, so that the host no longer runs ahead.",
        group=HARDWARE,
    )
    # Measured by benchmarks/loader.py on 2 CPU cores, whole pipeline: 757, 1098, 1124 and 1031 images/s with 1, 2, 3
    # and 4 threads; by benchmarks/throughput.py, MatteFormer: waited 0.4 % with 1 thread, 0.1 % with 2.
    threads: int = setting(
        0,
        "Threads per process that read and decode images; 0: all cores, shared among the processes, and up to 16 on a "
        "GPU, whose decoder takes memory for each.",
        low=0,
        high=1024,
        group=HARDWARE,
        changeable_on_resume=True,
    )
    # Likewise: 995, 1003, 997 and 1001 images/s with 1, 2, 3 and 4; waited 1.0 % with 1, 0.1 % with 2.
    prefetch: int = setting(
        2, "Micro-batches prepared ahead.", unit="BATCHES", low=1, high=1024, group=HARDWARE,
        changeable_on_resume=True,
    )  # fmt: skip
    # That decoder has been reported to write out of order and to call files decoded that it has skipped, on an H100:
    # tests/test_hardware_decoder.py looks for it.
    hw_decoder_load: float = setting(
        0.0,
        "Share of the JPEGs that the GPU's dedicated JPEG decoder takes, where it has one; its cores take the others.",
        unit="0..1",
        low=0.0,
        high=1.0,
        group=HARDWARE,
        changeable_on_resume=True,
    )

    quarantine: str = setting(
        "",
        "Files to leave out from the first step on, as listed in the quarantine.txt of another run.",
        unit="FILE",
        group=FAULTS,
        changeable_on_resume=True,
    )
    max_bad: float = setting(
        0.01,
        "Largest share of the files that may turn out to be damaged before the run stops; one always may.",
        unit="0..1",
        low=0.0,
        high=1.0,
        group=FAULTS,
        changeable_on_resume=True,
    )
    max_nonfinite: int = setting(
        10,
        "Steps in a row that may be skipped, because their loss or gradient is not finite, before the run stops.",
        unit="STEPS",
        low=1,
        group=FAULTS,
        changeable_on_resume=True,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.size % 32:
            near = [size for size in (self.size // 32 * 32, self.size // 32 * 32 + 32) if size >= 64]
            raise UserError(f"`size` {self.size} is not a multiple of 32; use {' or '.join(map(str, near))}")
        if self.scale_min > self.scale_max:
            raise UserError(f"`scale_min` {self.scale_min} is more than `scale_max` {self.scale_max}")
        if len({bool(self.val_image), bool(self.val_trimap), bool(self.val_alpha)}) > 1:
            raise UserError("`val_image`, `val_trimap` and `val_alpha` belong together; give all three, or none")
        if self.schedule == "milestones":
            read_milestones(self.milestones)
        elif self.milestones:
            raise UserError(
                f"`milestones` {self.milestones} need `schedule` milestones, got {self.schedule}; give that, or leave "
                "them out"
            )
        names = self.losses.split(",")
        if set(names) - set(LOSSES) or len(set(names)) < len(names):
            raise UserError(f"`losses` {self.losses}: choose from {', '.join(LOSSES)}, each once, separated by commas")
