"""Disentangled pre-training: photographs without labels in, a matting network out (Li et al., WACV 2024)."""

import dataclasses
import math
import os
from pathlib import Path

import torch

from dptmat import checkpoint, config, distributed
from dptmat.errors import UserError
from dptmat.index import ImageIndex
from dptmat.initialise import initialise
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
    if ranks.first:
        _refuse_another_run(settings, out)
    index = ImageIndex.open(settings.data)
    sampler = Sampler(settings.seed, len(index), settings.batch_size, ranks.rank, ranks.count)
    micro_batch = _micro_batch(settings, ranks.count)
    steps = settings.steps or settings.epochs * sampler.steps_per_epoch
    data = {"photographs": {"count": len(index), "digest": index.digest()}, "micro_batch": micro_batch}
    trainer = _trainer(settings, ranks, steps, settings.batch_size // ranks.count // micro_batch)
    start = _resume(trainer, settings, data)
    if len(set(map(str, distributed.gather((start, data))))) > 1:
        raise UserError("the processes do not see the same --data and --out; use a file system that all machines share")
    begun_with = "" if start else initialise(trainer.model, settings.model, settings.init, settings.load)

    if ranks.first:
        out.mkdir(parents=True, exist_ok=True)
        write_picture(out / "preview.png", _preview(settings, index, micro_batch, ranks))
        (out / "config.toml").write_bytes(os.fsencode(config.to_toml(settings)))
        checkpoint.drop_after(out / "checkpoints", start)
        going_on = f", going on after step {start}" if start else ""
        print(
            f"{len(index)} photographs, {steps} steps of {settings.batch_size} on {ranks.device}{going_on}", flush=True
        )
        if begun_with:
            print(begun_with, flush=True)
    progress = Progress(out, steps, settings.batch_size, start=start, writes=ranks.first)
    loader = _loader(settings, index, sampler, micro_batch, ranks, start, progress.left_out)
    batches = (synthesize_batch(views, settings) for views in loader)

    def report(done, scalars):
        progress.report(done, scalars, trainer.learning_rate(done - 1), loader.waited)

    def save(done):
        if ranks.first:
            state = {**trainer.state_dict(), "step": done, "config": dataclasses.asdict(settings), **data}
            checkpoint.save(out / "checkpoints", done, state, settings.keep)

    if start and not checkpoint.path_of(out / "checkpoints", start).exists():  # begun in another folder
        save(start)
    train(
        trainer, batches, steps, start=start,
        report=report, report_every=settings.log_every, save=save, save_every=settings.save_every,
    )  # fmt: skip
    last = checkpoint.path_of(out / "checkpoints", max(start, steps))
    if ranks.first:
        write_picture(out / "predictions.png", _predictions(trainer.model, next(batches)))
    left_out = _name_bad(loader, ranks, progress)
    progress.close()
    if ranks.first:
        if left_out:
            print(f"{left_out} of {len(index)} photographs left out")
        print(f"checkpoint  {last}")
        for kind, name in (("log", "log.jsonl"), ("picture", "preview.png"), ("picture", "predictions.png")):
            print(f"{kind:<10}  {out / name}", flush=True)
    return last


def _name_bad(loader, ranks, progress):
    """Log the photographs that other processes left out, and count those of all processes."""
    everywhere = {}
    for bad in distributed.gather(loader.bad):
        everywhere.update(bad)
    if ranks.first:
        for image in everywhere.keys() - loader.bad.keys():
            progress.left_out(*everywhere[image])
    return len(everywhere)


def preview(settings):
    """What the network sees in the first samples of a run in one process.

    Args:
        settings: ``PretrainConfig``; nothing is written.

    Returns:
        uint8 [H, W, 3] RGB: a row per sample with foreground, background, trimap, alpha and composite.
    """
    index = ImageIndex.open(settings.data)
    if len(index) < 2:
        raise UserError(f"--data {settings.data} holds one photograph; at least 2 are needed, one laid over the other")
    if settings.batch_size > len(index):
        few = min(64, len(index))
        settings = dataclasses.replace(settings, batch_size=few, micro_batch=few)
    return _preview(settings, index, _micro_batch(settings, 1), distributed.alone(settings.device))


def _preview(settings, index, micro_batch, ranks):
    def name_bad(path, reason):
        print(f"left out: {path}: {reason}", flush=True)

    sampler = Sampler(settings.seed, len(index), micro_batch)
    views = next(_loader(settings, index, sampler, micro_batch, ranks, 0, name_bad))
    return preview_sheet(views, synthesize_batch(views, settings), _PICTURED)


def synthesize_batch(views, settings):
    """The network's input and targets of one micro-batch of ``Views``: a ``Batch``."""
    batch = synthesize(
        views.views, views.ids, settings.seed, views.color,
        cell=settings.cell, unknown=settings.unknown, foreground=settings.foreground, mode=settings.alpha_mode,
        memory_format=torch.channels_last,
    )  # fmt: skip
    return batch if settings.trimap else dataclasses.replace(batch, input=batch.input[:, :3])


def _micro_batch(settings, processes):
    """Samples per process that pass through the network at once."""
    share = settings.batch_size // processes
    fitting = [size for size in range(2, share + 1) if share % size == 0]
    if settings.micro_batch in fitting:
        return settings.micro_batch
    small = [size for size in fitting if size <= 64]
    if settings.micro_batch or not small:
        choices = f"--micro-batch {', '.join(map(str, fitting))}" if fitting else "a larger --batch-size"
        raise UserError(
            f"--micro-batch {settings.micro_batch} does not fit --batch-size {settings.batch_size}, of which each of "
            f"{processes} processes has {share}; use {choices}"
        )
    return small[-1]


def _refuse_another_run(settings, out):
    if not (out / "config.toml").exists() or settings.resume == "auto":
        return
    if not settings.resume:
        raise UserError(f"--out {out} holds another run; go on with it by --resume auto, or choose another folder")
    if Path(settings.resume).absolute().parent != (out / "checkpoints").absolute():
        raise UserError(f"--resume {settings.resume} is not of the run that --out {out} holds; choose another folder")


def _resume(trainer, settings, data):
    """Give the trainer the state of the checkpoint to go on from, if any: the number of steps done."""
    newest = checkpoint.latest(Path(settings.out) / "checkpoints")
    path = newest if settings.resume == "auto" else settings.resume
    if not path:
        return 0
    saved = checkpoint.load(path)
    repeat = "repeat its options, or start a new run in another folder"
    for field in dataclasses.fields(settings):
        now, then = getattr(settings, field.name), saved["config"].get(field.name, field.default)
        if now != then and not field.metadata["free"]:
            raise UserError(
                f"{config.option_name(field)} is {now}, but the run of {path} was begun with {then}; {repeat}"
            )
    if saved["micro_batch"] != data["micro_batch"]:
        raise UserError(
            f"--micro-batch is {data['micro_batch']}, but the run of {path} was begun with {saved['micro_batch']}, "
            f"and backgrounds depend on it; {repeat}"
        )
    if saved["photographs"] != data["photographs"]:
        raise UserError(
            f"--data {settings.data} holds {data['photographs']['count']} photographs, not those that the run of "
            f"{path} was begun with; restore them, or start a new run in another folder"
        )
    try:
        trainer.load_state_dict(saved)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # torch raises any of these
        first_line = str(error).splitlines()[0]
        raise UserError(
            f"checkpoint {path} does not fit {settings.model}: {first_line}; use one of this run"
        ) from error
    return saved["step"]


def _trainer(settings, ranks, steps, accumulate):
    torch.manual_seed(settings.seed)
    model = create_model(settings.model, 6 if settings.trimap else 3, settings.recompute)
    model = model.to(ranks.device, memory_format=torch.channels_last)  # what tensor cores convolve fastest
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
