"""Run all benchmarks on this machine, one after the other, and keep what they say in one file.

    python benchmarks/publish.py --data imagenet/train --mattes alphamatting --machine h200
    python benchmarks/tables.py

``results/MACHINE.json`` holds the result of each run by its name, with command, settings, versions and date, and
``results/MACHINE/NAME.log`` what it has said; the tables of the documentation are made of it. What it holds already is
not done again, so that a call which was stopped goes on where it was; remove an entry to repeat it, and after an update
of the code remove the file. A run that fails is told, and the others go on.

On a GPU: ``synthesize``; ``loader``, its stages and the usual ``DataLoader``; ``loader hw X``, ``loader threads N`` and
``loader prefetch N``, decoding and the whole pipeline by these options; ``throughput MODEL BATCH AMP [compiled]``, all
of three networks, two batches, two precisions, compiled or not; ``pretraining_pays MODEL``, and the same with ``ways``,
of pre-training. On the CPU what fits it; ViTMatte with ``cells`` of two sizes; ``pack``: packing, and loading what is
packed; and ``trimap_width``.
"""

import itertools
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import torch

from dptmat.files import write_whole

BENCHMARKS = Path(__file__).parent
SHORT = {"rounds": 3, "seconds": 1}  # of the many runs that differ by an option
OPTIONS = [
    *(("hw", "hw-decoder-load", value) for value in (0, 0.25, 0.5, 0.65, 0.8, 1)),
    *(("threads", "threads", value) for value in (4, 8, 16, 32)),
    *(("prefetch", "prefetch", value) for value in (1, 2, 3, 4)),
]
TRAININGS = ("matteformer", "gca", "unet_resnet50"), (64, 256), ("bf16", "fp16"), (False, True)
SMALL = {"pretrain-steps": 400, "pretrain-batch": 16, "pretrain-size": 128, "steps": 120, "batch": 4, "size": 192}
# An hour of one core of an AMD EPYC: 15 pre-trainings and 18 fine-tunings.
SMALLER = {"pretrain-steps": 150, "pretrain-batch": 8, "pretrain-size": 96, "steps": 60, "batch": 4, "size": 128}
# An hour of one core with other work on it, less than half of that alone: 4 pre-trainings and 6 fine-tunings.
OF_CELLS = {"pretrain-steps": 250, "pretrain-batch": 4, "pretrain-size": 128, "steps": 60, "batch": 4, "size": 160}
PAYS = {
    "cuda": {(model, compare): {} for model in ("matteformer", "unet_resnet34") for compare in ("parts", "ways")},
    "cpu": {
        ("unet_resnet34", "parts"): SMALL,
        ("unet_resnet18", "ways"): SMALLER | {"amp": "bf16"},
        ("vitmatte_small", "cells"): OF_CELLS | {"amp": "bf16", "seeds": 2},
    },
}


def list_runs(device, data, mattes, work, checkpoint=None):
    """List what is run, by name: the program's name and its options. What needs a ``checkpoint`` needs it given."""
    gpu, common = device == "cuda", {"data": data, "device": device}
    runs = {"synthesize": ("synthesize", {"device": device}), "loader": ("loader", common)}
    for word, option, value in OPTIONS if gpu else ():
        chosen = {"contender": ("decode", "pipeline"), option: value}
        runs[f"loader {word} {value}"] = "loader", {**common, **SHORT, **chosen}
    for model, batch, amp, compiled in itertools.product(*TRAININGS) if gpu else ():
        chosen = {"model": model, "batch-size": batch, "micro-batch": batch, "amp": amp, "compile": compiled}
        runs[f"throughput {model} {batch} {amp}{' compiled' * compiled}"] = "throughput", {**common, **SHORT, **chosen}
    if not gpu:
        runs["pack"] = "pack", {"data": data}
        runs["trimap_width closed-form"] = "trimap_width", {"data": mattes, "without": "GT27", "side": 300}
        if checkpoint:
            judge = {"checkpoint": checkpoint, "only": "GT04,GT05,GT13,GT16,GT20", "side": 400}
            runs["trimap_width network"] = "trimap_width", {"data": mattes, **judge}
    for (model, compare), sizes in PAYS[device].items():
        name = f"pretraining_pays {model}{f' {compare}' * (compare != 'parts')}"
        given = {"photographs": data, "mattes": mattes, "device": device, "model": model, "compare": compare}
        runs[name] = "pretraining_pays", {**given, "out": work / name.replace(" ", "-"), **sizes}
    return runs


def as_words(options):
    """Write options as words of a command: ``True`` is a flag, and a tuple repeats its option."""
    for name, value in options.items():
        for each in value if isinstance(value, tuple) else (value,):
            if each is True:
                yield f"--{name}"
            elif each is not False:
                yield from (f"--{name}", str(each))


def run(program, options):
    """Run a benchmark: its result, and what it has said, which is shown, too.

    Raises:
        RuntimeError: It has failed; the last line of its complaint.
    """
    words, said = list(as_words(options)), []
    with tempfile.TemporaryDirectory() as folder:
        if program == "pretraining_pays":
            path, more = options["out"] / "scores.json", []
        else:
            path = Path(folder) / "result.json"
            more = ["--json", str(path)]
        command = [sys.executable, str(BENCHMARKS / f"{program}.py"), *words, *more]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for line in process.stdout:
                click.echo(line, nl=False)
                said.append(line)
        if process.returncode:
            raise RuntimeError("".join(said).strip().rpartition("\n")[2] or f"status {process.returncode}")
        command = shlex.join(["python", f"benchmarks/{program}.py", *words])
        return {**json.loads(path.read_text()), "command": command}, "".join(said)


def keep(path, known, name, log):
    """Write the results with a new one, and its log beside them."""
    logs = path.with_suffix("")
    logs.mkdir(parents=True, exist_ok=True)
    write_whole(logs / f"{name.replace(' ', '-')}.log", lambda file: file.write(log.encode()))
    write_whole(path, lambda file: file.write((json.dumps(known, indent=1) + "\n").encode()))


@click.command()
@click.option("--data", required=True, metavar="DIR", help="Photographs, 256 or more for the larger batches.")
@click.option("--mattes", required=True, metavar="DIR", help="With image/, trimap/, alpha/ and fg/.")
@click.option("--checkpoint", metavar="FILE", help="For trimap_width: a network fine-tuned without its five images.")
@click.option("--machine", required=True, metavar="NAME", help="Name of the file of results: h200, cpu.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), help="Default: the GPU if there is one.")
@click.option("--only", default="", metavar="WORDS", help="Only runs whose names begin so: throughput gca.")
@click.option(
    "--work", default="runs/benchmarks", show_default=True, metavar="DIR", type=click.Path(path_type=Path),
    help="For the networks of pretraining_pays, half a gigabyte each.",
)  # fmt: skip
@click.option(
    "--results", default=BENCHMARKS / "results", type=click.Path(path_type=Path), metavar="DIR",
    help="Where the file lies; default: results/ beside this program.",
)  # fmt: skip
def main(data, mattes, checkpoint, machine, device, only, work, results):
    """Run the benchmarks that are not yet in results/MACHINE.json."""
    path = results / f"{machine}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    runs = list_runs(device, data, mattes, work, checkpoint)
    chosen = [name for name in runs if name.startswith(only) and name not in known]
    if not any(name.startswith(only) for name in runs):
        raise click.UsageError(f"--only {only}: no run begins so; there are {', '.join(runs)}")
    failed = []
    for name in chosen:
        click.echo(f"\n=== {name}", err=True)
        try:
            known[name], log = run(*runs[name])
        except RuntimeError as error:
            failed.append(name)
            click.echo(f"{name} failed: {error}", err=True)
            continue
        keep(path, known, name, log)
    click.echo(f"\n{path} holds {', '.join(known) or 'nothing'}", err=True)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}; the messages above say why")


if __name__ == "__main__":
    main()
