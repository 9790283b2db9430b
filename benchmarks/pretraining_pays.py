"""Whether pre-training pays, in small: the same fine-tuning from random weights and from pre-trained ones.

    python benchmarks/pretraining_pays.py --photographs imagenet-sample --mattes alphamatting --out runs/pays

A network is pre-trained on photographs without labels. Then it is fine-tuned on mattes over the same photographs from
several starts, all with the same steps, settings and order of the data. Each is done for several seeds, of which the
new weights and the data of fine-tuning follow. The last network of each scores the images named by ``--test``, none of
which it has seen, at full size by ``dptmat evaluate``'s rules. Nothing is chosen by these scores.

``--compare parts``: ``random`` weights; the pre-trained ``encoder`` with a new decoder; ``encoder + decoder``. The
pre-training is one and the same.

``--compare ways``: ``random`` weights, and encoder and decoder pre-trained in each way: as the ``paper's text`` says;
as the ``released code`` does (``recipes/pretrain/official-code.toml``); as the paper's text but for one difference of
that code. Each seed is that of a pre-training of its own, too: all ways begin with the same weights and photographs,
and the spread over the seeds is that of pre-training and fine-tuning together.

``--compare cells``: ``random`` weights, and encoder and decoder pre-trained with trimaps of cells of 7 and of 16
pixels: the paper's, and a patch of a plain vision transformer. Seeds are as for ways.

The table has the mean over the seeds and their standard deviation (n - 1); of ways also those of the difference to the
paper's text, seed by seed. ``alphas.png`` shows what the networks of the first seed predict. What is done already is
not done again: a call that was stopped goes on where it was.
"""

import json
import logging
import os
import re
import time
from pathlib import Path
from statistics import mean, stdev

import click
import cv2
import torch
from matplotlib.figure import Figure
from measure import as_usage_error, describe_environment, write_result

from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.config.settings import read_toml
from dptmat.data.cases import pair
from dptmat.data.image_io import read_alpha, read_image
from dptmat.defaults import METRICS, PRECISIONS
from dptmat.errors import UserError
from dptmat.tasks.evaluate import evaluate
from dptmat.tasks.finetune import finetune
from dptmat.tasks.pretrain import pretrain
from dptmat.training import checkpoint
from dptmat.weights.load import load_network

PAPER = "paper's text"
RELEASED = read_toml(Path(__file__).parents[1] / "recipes/pretrain/official-code.toml", "the recipe")
PARTS = {"random": None, "encoder": "encoder", "encoder + decoder": "all"}  # what is loaded
WAYS = {  # how it is pre-trained
    "random": None,
    PAPER: {},
    "released code": RELEASED | {"sync_bn": False},  # there are no other processes
    "alpha moved": {"move_alpha": RELEASED["move_alpha"]},
    "background left": {"augment_background": RELEASED["augment_background"]},
    "squash": {"fit": RELEASED["fit"]},
}
CELLS = {"random": None, "cell 7": {"cell": 7}, "cell 16": {"cell": 16}}
COMPARED = {"parts": PARTS, "ways": WAYS, "cells": CELLS}
HEIGHT, HEAD = 260, 28  # of an image and of its caption, in pixels


def split(mattes, test, out):
    """Pair the mattes: lists of the fine-tuning's files, written to ``out``, and the cases of the test."""
    cases = pair(**{name: mattes / name for name in ("image", "trimap", "alpha", "fg")})
    unknown = set(test) - {case.name for case in cases}
    if unknown:
        raise UserError(f"--test {','.join(sorted(unknown))}: --mattes {mattes} holds no such images")
    lists = {}
    for kind in ("fg", "alpha"):
        lists[kind] = str(out / f"{kind}.txt")
        paths = [os.path.abspath(case.path(kind)) for case in cases if case.name not in test]
        Path(lists[kind]).write_text("".join(f"{path}\n" for path in paths))
    return lists, [case for case in cases if case.name in test]


def train(task, folder, settings):
    """Run a training, or the rest of it, or nothing where it is done: the path of its last checkpoint."""
    last = checkpoint.path_of(folder / "checkpoints", settings.steps)
    return last if last.exists() else task(settings)


def score(folder, cases, settings):
    """Fine-tune and evaluate: the scores of ``cases``, read from ``folder`` where they have been written before."""
    path = folder / "evaluation" / "scores.json"
    if not path.exists():
        last = train(finetune, folder, settings)
        device = "cuda" if torch.cuda.is_available() and settings.device != "cpu" else "cpu"
        network, _ = load_network(last, device)
        evaluate(cases, network, out=path.parent, checkpoint=last)
        last.unlink()  # half a gigabyte each
    return json.loads(path.read_text())["mean"]


def name_folder(*words):
    """Name a folder by what is in it, letters and digits alone."""
    return re.sub(r"\W+", "-", " ".join(map(str, words)))


def list_starts(compare, seed, pretrain_so):
    """List the starts of a seed's fine-tunings, by name; each is pre-trained when its turn comes.

    Yields:
        The name of a start, and the settings of fine-tuning that say what is loaded.
    """
    for name, choice in COMPARED[compare].items():
        if choice is None:
            yield name, {"init": "random"}
        elif compare == "parts":
            yield name, {"init": str(pretrain_so("pretrained", seed=0)), "load": choice}
        else:
            folder = name_folder("pretrained", name, seed)
            yield name, {"init": str(pretrain_so(folder, **choice, seed=seed))}


def summarize(values):
    """Mean of a score over the seeds, and standard deviation."""
    return {"mean": mean(values), "sd": stdev(values) if len(values) > 1 else None, "seeds": values}


def summarize_all(scores):
    """Summarize each score of each start; and its difference to that of the paper's text, which has the same seed."""
    rows = {}
    for start, of_seeds in scores.items():
        rows[start] = {name: summarize([each[name] for each in of_seeds]) for name in METRICS}
        if PAPER in scores and start != PAPER:
            pairs = list(zip(of_seeds, scores[PAPER], strict=True))
            less = {name: summarize([each[name] - paper[name] for each, paper in pairs]) for name in METRICS}
            rows[start]["less_paper"] = less
    return rows


def write(cell, factor=1, sign=""):
    """Write a mean and its deviation."""
    spread = "" if cell["sd"] is None else f" ± {factor * cell['sd']:.2f}"
    return f"{factor * cell['mean']:{sign}.2f}{spread}"


def show(rows):
    """The table, in the scale of the papers: MSE in thousandths."""
    less = any("less_paper" in row for row in rows.values())
    lines = [f"{'start':18} {'SAD':>14} {'MSE e-3':>14} {'Grad':>14} {'Conn':>14}" + f" {'SAD - paper':>16}" * less]
    for start, row in rows.items():
        cells = [write(row[name], 1e3 if name == "mse" else 1) for name in METRICS]
        more = f" {write(row['less_paper']['sad'], sign='+'):>16}" if "less_paper" in row else ""
        lines.append(f"{start:18} " + " ".join(f"{cell:>14}" for cell in cells) + more)
    return "\n".join(lines)


def draw(cases, folders, path):
    """Draw image, truth and the prediction of each start, a row for each test image, into a PNG file."""
    rows = []
    for case in cases:
        tiles = {"image": read_image(case.path("image")), "truth": read_alpha(case.path("alpha"))}
        tiles |= {start: read_alpha(folder / "evaluation/alpha" / f"{case.name}.png") for start, folder in folders}
        tiles = {caption: cv2.cvtColor(t, cv2.COLOR_GRAY2RGB) if t.ndim == 2 else t for caption, t in tiles.items()}
        width = round(HEIGHT * tiles["image"].shape[1] / tiles["image"].shape[0])
        rows.append({c: cv2.resize(t, (width, HEIGHT), interpolation=cv2.INTER_AREA) for c, t in tiles.items()})
    widest = max(sum(tile.shape[1] for tile in row.values()) for row in rows)
    height, inch = (HEAD + HEIGHT) * len(rows), 64  # pixels, a power of two so that no pixel is lost by rounding
    figure = Figure(figsize=(widest / inch, height / inch), dpi=inch)
    for k, row in enumerate(rows):
        left, lower = 0, height - (k + 1) * (HEAD + HEIGHT)
        for caption, tile in row.items():
            figure.figimage(tile, left, lower, origin="upper")
            figure.text((left + 4) / widest, (lower + HEIGHT + HEAD / 2) / height, caption, size=13, va="center")
            left += tile.shape[1]
    figure.savefig(path)


@click.command()
@click.option("--photographs", required=True, metavar="DIR|FILE", help="To pre-train on, and as backgrounds.")
@click.option(
    "--mattes", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
    help="With image/, trimap/, alpha/ and fg/, files of the same names.",
)  # fmt: skip
@click.option("--test", default="GT04,GT05,GT13,GT16,GT20", show_default=True, metavar="NAMES", help="Not trained on.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option(
    "--compare", type=click.Choice(list(COMPARED)), default="parts", show_default=True,
    help="Parts of a pre-trained network that are loaded, ways of pre-training, or sides of a trimap's cells.",
)  # fmt: skip
@click.option("--model", default="matteformer", show_default=True, metavar="NAME", help="Network.")
@click.option("--pretrain-steps", default=2000, show_default=True, metavar="STEPS")
@click.option("--pretrain-batch", default=64, show_default=True, metavar="SAMPLES")
@click.option("--pretrain-size", default=224, show_default=True, metavar="PIXELS")
@click.option("--pretrain-lr", default=5e-4, show_default=True, help="Peak learning rate.")
@click.option("--steps", default=400, show_default=True, help="Of each fine-tuning.")
@click.option("--batch", default=10, show_default=True, metavar="SAMPLES")
@click.option("--size", default=512, show_default=True, metavar="PIXELS", help="Side of the crops.")
@click.option("--lr", default=4e-4, show_default=True, help="Peak learning rate of fine-tuning.")
@click.option("--seeds", default=3, show_default=True, help="Number of fine-tunings from each start.")
@click.option("--amp", type=click.Choice(PRECISIONS), default="auto", show_default=True, help="Of all trainings.")
@click.option("--device", type=click.Choice(["auto", "cuda", "cpu"]), default="auto", show_default=True)
def main(photographs, mattes, test, out, compare, model, device, amp, seeds, **sizes):
    """Fine-tune from random and from pre-trained weights, and compare the scores."""
    began = time.perf_counter()
    common = {"model": model, "device": device, "amp": amp, "resume": "auto", "keep": 1, "log_every": 50}

    def pretrain_so(folder, **ways):
        given = ways | common | {"data": photographs, "out": str(out / folder), "save_every": 500}
        given |= {"steps": sizes["pretrain_steps"], "batch_size": sizes["pretrain_batch"]}
        given |= {"size": sizes["pretrain_size"], "lr": sizes["pretrain_lr"]}
        return train(pretrain, out / folder, PretrainConfig(**given))

    def finetune_from(start, seed):
        folder = out / name_folder(start[0], seed)
        given = start[1] | common | lists | {"bg": photographs, "out": str(folder), "seed": seed, "lr": sizes["lr"]}
        given |= {"batch_size": sizes["batch"], "save_every": sizes["steps"]}
        given |= {"steps": sizes["steps"], "size": sizes["size"]}
        return score(folder, cases, FinetuneConfig(**given))

    try:
        out.mkdir(parents=True, exist_ok=True)
        lists, cases = split(mattes, test.split(","), out)
        scores = {}
        for seed in range(seeds):  # the first one of all starts first
            for start in list_starts(compare, seed, pretrain_so):
                scores.setdefault(start[0], []).append(finetune_from(start, seed))
    except UserError as error:
        raise as_usage_error(error) from error
    rows = summarize_all(scores)
    click.echo(f"\n{model}, {sizes['pretrain_steps']} steps of pre-training, {sizes['steps']} of fine-tuning\n")
    click.echo(show(rows))
    environment = describe_environment(["cuda", "cpu"] if torch.cuda.is_available() else ["cpu"])
    result = {**environment, "model": model, **sizes, "test": test, "compare": compare, "amp": amp}
    write_result(out / "scores.json", {**result, "seconds": time.perf_counter() - began, "rows": rows})
    draw(cases, [(start, out / name_folder(start, 0)) for start in rows], out / "alphas.png")
    click.echo(f"\n{out / 'scores.json'}, {out / 'alphas.png'}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # what the trainings say
    main()
