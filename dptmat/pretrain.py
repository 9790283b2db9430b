"""Disentangled pre-training: photographs without labels in, a matting network out (Li et al., WACV 2024)."""

import dataclasses
import math
import os
from pathlib import Path

import torch

from dptmat import checkpoint, config, distributed
from dptmat.errors import UserError
from dptmat.index import ImageIndex
from dptmat.kernels import synthesize
from dptmat.losses import matting_losses
from dptmat.models import create_model
from dptmat.optim import adamw, learning_rate
from dptmat.pictures import predictions_sheet, preview_sheet, write_picture
from dptmat.pipelines.augment import Augmentation
from dptmat.pipelines.loader import Loader
from dptmat.progress import Progress
from dptmat.sampler import Sampler
from dptmat.trainer import Trainer, train

_PICTURED = 8  # samples in a picture


def pretrain(settings):
    """Run a pre-training from its settings to its last checkpoint.

    Writes into ``settings.out``: ``config.toml``, ``log.jsonl``, ``tensorboard/``, ``checkpoints/``, ``preview.png``
    and ``predictions.png``.

    Args:
        settings: ``PretrainConfig``.

    Returns:
        Path of the last checkpoint.

    Raises:
        UserError, OSError: Something that the user can mend, in one sentence.
    """
    ranks = distributed.start(settings.device)
    try:
        return _pretrain(settings, ranks)
    finally:
        distributed.stop()


def _pretrain(settings, ranks):
    out = Path(settings.out)
    if ranks.first and not settings.resume and (out / "config.toml").exists():
        raise UserError(f"--out {out} holds another run; go on with it by --resume auto, or choose another folder")
    index = ImageIndex.open(settings.data)
    sampler = Sampler(settings.seed, len(index), settings.batch_size, ranks.rank, ranks.count)
    micro_batch = _micro_batch(settings, ranks.count)
    steps = settings.steps or settings.epochs * sampler.steps_per_epoch
    photographs = {"count": len(index), "digest": index.digest()}
    trainer = _trainer(settings, ranks, steps, settings.batch_size // ranks.count // micro_batch)
    start = _resume(trainer, settings, photographs)

    if ranks.first:
        out.mkdir(parents=True, exist_ok=True)
        write_picture(out / "preview.png", preview(settings))
        (out / "config.toml").write_text(config.to_toml(settings), encoding="utf-8")
        going_on = f", going on after step {start}" if start else ""
        print(
            f"{len(index)} photographs, {steps} steps of {settings.batch_size} on {ranks.device}{going_on}", flush=True
        )
    progress = Progress(out, steps, settings.batch_size, start=start, writes=ranks.first)
    loader = _loader(settings, index, sampler, micro_batch, ranks, start, progress.left_out)
    batches = (synthesize_batch(views, settings) for views in loader)

    def report(done, scalars):
        progress.report(done, scalars, trainer.learning_rate(done - 1), loader.waited)

    def save(done):
        if ranks.first:
            run = {"step": done, "config": dataclasses.asdict(settings), "photographs": photographs}
            checkpoint.save(out / "checkpoints", done, {**trainer.state_dict(), **run}, settings.keep)

    train(
        trainer, batches, steps, start=start,
        report=report, report_every=settings.log_every, save=save, save_every=settings.save_every,
    )  # fmt: skip
    last = checkpoint.latest(out / "checkpoints")
    if ranks.first:
        write_picture(out / "predictions.png", _predictions(trainer.model, next(batches)))
    progress.close()
    if ranks.first:
        if loader.bad:
            print(f"{len(loader.bad)} of {len(index)} photographs left out, named in {out / 'log.jsonl'}")
        print(f"checkpoint  {last}")
        for kind, name in (("log", "log.jsonl"), ("picture", "preview.png"), ("picture", "predictions.png")):
            print(f"{kind:<10}  {out / name}", flush=True)
    return last


def preview(settings):
    """What the network sees in the first samples of a run.

    Args:
        settings: ``PretrainConfig``; nothing is written.

    Returns:
        uint8 [H, W, 3] RGB: a row per sample with foreground, background, trimap, alpha and composite.
    """
    index = ImageIndex.open(settings.data)
    micro_batch = max(2, min(settings.micro_batch, settings.batch_size, len(index)))
    sampler = Sampler(settings.seed, len(index), micro_batch)
    ranks = distributed.alone(settings.device)
    views = next(_loader(settings, index, sampler, micro_batch, ranks, 0, lambda path, reason: None))
    batch = synthesize_batch(views, settings)
    return preview_sheet(views, batch, _PICTURED)


def synthesize_batch(views, settings):
    """The network's input and targets of one micro-batch of ``Views``: a ``Batch``."""
    batch = synthesize(
        views.views, views.ids, settings.seed, views.color,
        cell=settings.cell, unknown=settings.unknown, foreground=settings.foreground, mode=settings.alpha,
    )  # fmt: skip
    return batch if settings.trimap else dataclasses.replace(batch, input=batch.input[:, :3])


def _micro_batch(settings, ranks):
    """Samples per process that pass through the network at once."""
    local = settings.batch_size // ranks
    micro_batch = min(settings.micro_batch, local)
    if micro_batch < 2 or local % micro_batch:
        raise UserError(
            f"--micro-batch {settings.micro_batch} does not fit: each of {ranks} processes gets {local} of "
            f"--batch-size {settings.batch_size}; choose a divisor of {local} that is 2 or more"
        )
    return micro_batch


def _resume(trainer, settings, photographs):
    """Give the trainer the state of the checkpoint to go on from, if any: the number of steps done."""
    newest = checkpoint.latest(Path(settings.out) / "checkpoints")
    path = newest if settings.resume == "auto" else settings.resume
    if not path:
        return 0
    saved = checkpoint.load(path)
    for field in dataclasses.fields(settings):
        now, then = getattr(settings, field.name), saved["config"].get(field.name, field.default)
        if now != then and not field.metadata["free"]:
            raise UserError(
                f"{config.option_name(field)} is {now}, but the run of {path} was begun with {then}; "
                "repeat its options, or start a new run in another folder"
            )
    if saved.get("photographs") != photographs:
        raise UserError(
            f"--data {settings.data} holds {photographs['count']} photographs, not those that the run of {path} "
            "was begun with; restore them, or start a new run in another folder"
        )
    trainer.load_state_dict(saved)
    return saved["step"]


def _trainer(settings, ranks, steps, accumulate):
    torch.manual_seed(settings.seed % 2**63)
    model = create_model(settings.model, in_channels=6 if settings.trimap else 3).to(ranks.device)
    names, warmup = settings.losses.split(","), round(settings.warmup * steps)
    return Trainer(
        model,
        lambda outputs, batch: matting_losses(outputs, batch, names),
        adamw(model, settings.weight_decay),
        lambda step: learning_rate(step, steps, warmup, settings.lr),
        ranks,
        seed=settings.seed,
        accumulate=accumulate,
        clip=settings.clip or math.inf,
        amp=settings.amp,
        compile=settings.compile,
    )


def _loader(settings, index, sampler, micro_batch, ranks, start, report_bad):
    ranges = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Augmentation)}
    return Loader(
        index,
        sampler,
        Augmentation(**ranges),
        size=settings.size,
        micro_batch=micro_batch,
        device=ranks.device,
        threads=settings.threads or max(1, len(os.sched_getaffinity(0)) // ranks.local_count),
        prefetch=settings.prefetch,
        start=start,
        report_bad=report_bad,
    )


@torch.no_grad()
def _predictions(model, batch):
    model.eval()
    return predictions_sheet(batch, model(batch.input[:_PICTURED])["alpha_os1"])
