"""A training run from its settings to its last checkpoint: what pre-training and fine-tuning have in common."""

import contextlib
import dataclasses
import math
import os
from pathlib import Path

import torch
from timm.layers import convert_sync_batchnorm

from dptmat.config import settings as config
from dptmat.contact_sheets import predictions_sheet, write_picture
from dptmat.errors import UserError
from dptmat.models import create_model
from dptmat.pipelines.augment import Augmentation
from dptmat.pipelines.loader import Loader
from dptmat.training import checkpoint, distributed
from dptmat.training.bottleneck import Bottleneck
from dptmat.training.data_wait import DataWait
from dptmat.training.lock import locked
from dptmat.training.log import Progress
from dptmat.training.optim import adamw, learning_rate
from dptmat.training.quarantine import QUARANTINE_FILE, open_quarantine
from dptmat.training.signals import Signals
from dptmat.training.trainer import Trainer, train
from dptmat.weights.initialize import initialize

FILES = "files.txt"  # in the output folder: the photographs that the run began with


def run(task, settings):
    """Train from the start, or from where a checkpoint says, to the last step.

    Writes into ``settings.out``: ``config.toml``, ``log.jsonl``, ``tensorboard/``, ``checkpoints/``, ``preview.png``,
    ``predictions.png``, ``files.txt`` and, if files are bad, ``quarantine.txt``. SIGTERM, SIGUSR1 and SIGINT end the
    run after the step under way with a checkpoint of it.

    Args:
        task: Class of what is trained on what, made with (settings, process): ``pretrain.Pretraining`` or
            ``finetune.Finetuning``.
        settings: Its settings, with all fields of ``RunConfig``.

    Returns:
        Path of the last checkpoint.

    Raises:
        UserError, OSError: Something that the user can mend, in one sentence.
    """
    with contextlib.ExitStack() as held:
        process, in_order = distributed.start(settings.device), False
        try:
            distributed.on_all_ranks(lambda: _take(settings, held) if process.is_main else None)
            of_task = distributed.on_all_ranks(lambda: task(settings, process))
            last = _run(of_task, settings, process)
            in_order = True
            return last
        except torch.OutOfMemoryError as error:
            raise UserError(_out_of_memory(settings, process, of_task.micro_batch)) from error
        except RuntimeError as error:
            if not distributed.is_loss_of_another(error):
                raise
            raise UserError(
                "another process of this run has ended, and its message says why; so does this one"
            ) from error
        finally:
            distributed.shutdown(in_order)


def _take(settings, held):
    """Take the output folder for this run alone, and remove what a kill has left half written."""
    held.enter_context(locked(settings.out))
    _refuse_another_run(settings)
    for folder in (Path(settings.out), Path(settings.out) / "checkpoints"):
        checkpoint.remove_parts(folder)


def _run(task, settings, process):
    out, steps = Path(settings.out), task.steps
    data = {"photographs": task.photographs, "micro_batch": task.micro_batch}
    trainer = make_trainer(task, settings, process)
    start, owes_validation = distributed.on_all_ranks(lambda: _resume(task, trainer, settings, data, process))
    if len(set(map(str, distributed.gather((start, data))))) > 1:
        raise UserError("the processes do not see the same files and --out; use a file system that all machines share")
    begun_with = "" if start else initialize(trainer.model, settings.model, settings.init, settings.load)

    if process.is_main:
        if not start:
            task.index.write(out / FILES)
        (out / "config.toml").write_bytes(os.fsencode(config.to_toml(settings)))
        checkpoint.drop_after(out / "checkpoints", start)
        going_on = f", going on after step {start}" if start else ""
        print(f"{task.about}, {steps} steps of {settings.batch_size} on {process.device}{going_on}", flush=True)
        if begun_with:
            print(begun_with, flush=True)
    progress = Progress(out, steps, settings.batch_size, start=start, writes=process.is_main)
    quarantine = distributed.on_all_ranks(
        lambda: open_quarantine(out, settings.quarantine, progress.left_out, writes=process.is_main)
    )
    if process.is_main:
        write_picture(out / "preview.png", task.preview(quarantine))
    loader = make_loader(task, settings, process, start, quarantine)
    waiting = DataWait(loader, process.device)
    batches = map(task.batch, waiting)
    bottleneck = Bottleneck(loader, settings, process, task.micro_batch)
    checkpoints = checkpoint.Checkpoints(
        out / "checkpoints",
        settings.keep,
        lambda done: {
            **trainer.state_dict(),
            "step": done,
            "config": dataclasses.asdict(settings),
            **data,
            "owes_validation": owes_validation,
        },
    )
    signals = Signals()
    tally, failure = distributed.Tally(), quarantine.too_many(task.source, settings.max_bad)
    if failure:
        raise UserError(failure)

    def report(done, scalars, skipped):
        # All processes wait for the one that waits longest.
        waited, waited_host = map(max, zip(*distributed.gather((waiting.seconds, waiting.host)), strict=True))
        progress.report(done, scalars, trainer.learning_rate(done - 1), waited, waited_host)
        if process.is_main and (advice := bottleneck.look(done, waited)):
            progress.advise(done, advice)
        if skipped:  # the same steps in all processes
            for step, samples in _samples(task, skipped).items():
                if samples or not trainer.overflows_allowed:  # float16 is finding its scale
                    progress.skipped(step + 1, samples or _whole_batch(task.sampler, step))

    def stop(done):
        if process.is_main:
            checkpoints.save_if_due(done)
        nonlocal failure
        asked, found = tally.add(int(bool(signals.asked)), quarantine.unshared)
        if found:
            quarantine.share()
            failure = quarantine.too_many(task.source, settings.max_bad)
        return failure or (f"{signals.asked or 'a signal to another process'} asked to stop" if asked else "")

    def save(done, reason):
        nonlocal owes_validation
        owes_validation = bool(reason) and (done % settings.save_every == 0 or done == steps)
        if not reason:
            task.validate(trainer.model, done, progress)
        if process.is_main:
            (checkpoints.save_at_last if reason or done == steps else checkpoints.save)(done)

    with signals:  # until here there is nothing to lose
        # At the start, what training improves on; and what is wrong with the validation's files shows at once.
        if not start or owes_validation:
            task.validate(trainer.model, start, progress)
        if start and not checkpoint.path_of(out / "checkpoints", start).exists():  # begun in another folder
            save(start, "")
        done, reason = train(
            trainer, batches, steps, start=start, report=report, report_every=settings.log_every, save=save,
            save_every=settings.save_every, max_nonfinite=settings.max_nonfinite, stop=stop,
        )  # fmt: skip
    tally.drain()
    quarantine.share()
    last = checkpoint.path_of(out / "checkpoints", done)
    if failure:
        raise UserError(f"{failure}; {last} holds what was reached")
    if process.is_main and not reason:
        write_picture(out / "predictions.png", _predictions(task, trainer.model, next(batches)))
    progress.close()
    if process.is_main:
        if quarantine.bad:
            print(f"{len(quarantine.bad)} of {task.about} left out, listed in {out / QUARANTINE_FILE}")
        if progress.skipped_steps:
            print(f"{progress.skipped_steps} steps left out, since loss or gradient were not finite")
        if reason:
            print(f"{reason}: saved {last} after step {done} of {steps}; go on by --resume auto", flush=True)
            return last
        print(f"checkpoint  {last}")
        for kind, name in (("log", "log.jsonl"), ("picture", "preview.png"), ("picture", "predictions.png")):
            print(f"{kind:<10}  {out / name}", flush=True)
    if not reason:
        task.finish()
    return last


def make_loader(task, settings, process, start, quarantine):
    """Make the loader of a task's batches, from a step on."""
    return Loader(
        task.source,
        task.sampler,
        micro_batch=task.micro_batch,
        device=process.device,
        threads=settings.threads or process.cores,
        prefetch=settings.prefetch,
        hw_decoder_load=settings.hw_decoder_load,
        start=start,
        quarantine=quarantine,
    )


def choose_augmentation(settings):
    """Take the ranges of the random changes from the settings of any task."""
    return Augmentation(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Augmentation)})


def choose_micro_batch(settings, processes, smallest, usual):
    """Choose the samples per process that pass through the network at once.

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
        choices = f"--micro-batch {', '.join(map(str, fitting))}" if fitting else "a larger --batch-size"
        raise UserError(
            f"--micro-batch {settings.micro_batch} does not fit --batch-size {settings.batch_size}, of which each of "
            f"{processes} processes has {share}; use {choices}"
        )
    return small[-1]


def _samples(task, skipped):
    """Ids of the samples whose losses are not finite, in all processes, by step."""
    size, sampler = task.micro_batch, task.sampler
    own = {
        step: [int(ident) for part in parts for ident in sampler.ids(step)[part * size : (part + 1) * size]]
        for step, parts in skipped.items()
    }
    everywhere = distributed.gather(own)
    return {step: sorted(ident for ids in everywhere for ident in ids[step]) for step in skipped}


def _whole_batch(sampler, step):
    return dataclasses.replace(sampler, rank=0, ranks=1).ids(step).tolist()


def _out_of_memory(settings, process, micro_batch):
    remedies = [f"a --micro-batch below {micro_batch} (in a new run)"]
    if not settings.grad_checkpointing:
        remedies.insert(0, "--grad_checkpointing")
    if settings.amp == "off":
        remedies.append("--amp auto (in a new run)")
    return (
        f"the memory of {process.device} does not hold {micro_batch} of the --batch-size {settings.batch_size} samples "
        f"at once; use {' or '.join(remedies)}"
    )


def _refuse_another_run(settings):
    out = Path(settings.out)
    if not (out / "config.toml").exists() or settings.resume == "auto":
        return
    if not settings.resume:
        raise UserError(f"--out {out} holds another run; go on with it by --resume auto, or choose another folder")
    if Path(settings.resume).absolute().parent != (out / "checkpoints").absolute():
        raise UserError(f"--resume {settings.resume} is not of the run that --out {out} holds; choose another folder")


def _resume(task, trainer, settings, data, process):
    """Give the trainer the state of the checkpoint to go on from, if any.

    Returns:
        Steps done, and whether the run was stopped there without the validation that was due.
    """
    if settings.resume == "auto":
        path, saved, damaged = checkpoint.newest_whole(Path(settings.out) / "checkpoints")
        for sentence in damaged if process.is_main else ():
            print(f"{sentence}; going on from {path.name} instead", flush=True)
    else:
        path, saved = settings.resume, settings.resume and checkpoint.load(settings.resume)
    if not path:
        return 0, False
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
            f"and what is computed depends on it; {repeat}"
        )
    if saved["photographs"] != data["photographs"]:
        raise UserError(
            f"{task.about} are not what the run of {path} was begun with; restore its files, or start a new run in "
            "another folder"
        )
    try:
        trainer.load_state_dict(saved)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:  # torch raises any of these
        first_line = str(error).splitlines()[0]
        raise UserError(
            f"checkpoint {path} does not fit {settings.model}: {first_line}; use one of this run"
        ) from error
    return saved["step"], saved.get("owes_validation", False)


def make_trainer(task, settings, process):
    """Make the trainer of a task, with a new network."""
    torch.manual_seed(settings.seed)
    model = create_model(settings.model, 6 if settings.trimap else 3, settings.grad_checkpointing)
    if settings.sync_bn:
        if process.device.type == "cpu":
            raise UserError("--sync-bn needs GPUs: PyTorch has no synchronised batch norm on the CPU; leave it out")
        if process.world_size > 1:
            model = convert_sync_batchnorm(model)
    model = model.to(process.device, memory_format=torch.channels_last)  # what tensor cores convolve fastest
    warmup = round(settings.warmup * task.steps)
    return Trainer(
        model,
        task.losses,
        adamw(model, settings.weight_decay, (settings.beta1, settings.beta2)),
        lambda step: learning_rate(step, task.steps, warmup, settings.lr),
        process,
        seed=settings.seed,
        accumulate=settings.batch_size // process.world_size // task.micro_batch,
        clip=settings.clip or math.inf,
        clip_factor=settings.clip_factor or math.inf,
        amp=settings.amp,
        compile=settings.compile,
    )


@torch.no_grad()
def _predictions(task, model, batch):
    model.eval()
    return predictions_sheet(batch, model(batch.input[: task.pictured])["alpha_os1"])
