"""Write the tables of the documentation, and the images beside them, from the results that ``publish.py`` has kept.

    python benchmarks/tables.py

Between ``<!-- MACHINE NAME -->`` and ``<!-- end -->`` stands the table of an entry of ``results/MACHINE.json``, or of
several of one kind: ``cpu synthesize``, ``h200 loader``, ``h200 loader options``, ``h200 throughput``. The stages of
``loader`` are also drawn, in ``results/loader-MACHINE.png``, and ``trimap_width`` in ``docs/images``.
"""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import loader as loader_stages
import trimap_width

from dptmat.defaults import METRICS

BENCHMARKS = Path(__file__).parent
README = BENCHMARKS.parent / "README.md"
DOCS = BENCHMARKS.parent / "docs"
PAGES = (README, DOCS / "trimaps.md")  # those with tables
SYNTHESIZE = {
    "out=": "`synthesize(..., out=batch)`, over the memory of an earlier call",
    "dptmat": "`synthesize`",
    "numpy": "NumPy, the whole batch at once",
    "compiled": "PyTorch, `torch.compile`",
    "eager": "PyTorch, eager",
}
LOADER = {
    "decode": "decoding alone",
    "shrink": "and shrinking, antialiased",
    "warp": "and the warp: the whole graph",
    "pipeline": "and `synthesize`: **the whole pipeline**",
    "official-code recipe": "the whole pipeline of the official-code recipe",
    "DataLoader": "the usual `DataLoader` with OpenCV",
    "DataLoader direct": "`DataLoader` with OpenCV, written with care",
    "DataLoader albumentations": "`DataLoader` with albumentations",
    "DataLoader released": "`DataLoader` with the released code's way of making samples",
}


PACK = {
    "usual": "the usual script: Pillow, bicubic, quality 90",
    "pack": "`dptmat pack`, one core",
    "originals": "training's CPU pipeline, from the originals",
    "copied": "from the same bytes in shards",
    "packed": "from shards packed at 224 pixels",
}


def synthesize(result):
    """Time per sample of 224x224 in float32, of the largest batch, on one thread where threads are counted."""
    rows = [row for row in result["rows"] if row["height"] == 224 and row["dtype"] == "float32"]
    rows = [row for row in rows if row["layout"] == "NCHW" and row["threads"] in (None, 1)]
    batch = max(row["batch"] for row in rows)
    rows = {row["version"]: row for row in rows if row["batch"] == batch}
    gpu = rows["dptmat"]["device"] == "cuda"
    yield "", "µs per sample" if gpu else "ms per sample", "of a copy's bytes/s", ""
    for version, label in SYNTHESIZE.items():
        if version in rows:
            row = rows[version]
            times = f"{row['times_dptmat']:.1f} times `synthesize`" if row["times_dptmat"] > 1 else ""
            yield label, f"{row['ms_per_sample'] * (1e3 if gpu else 1):.2f}", f"{row['share_of_copy']:.0%}", times


def loader(result):
    """Samples per second of each stage and of the DataLoaders, with the memory of all processes."""
    rows = {row["contender"]: row for row in result["rows"]}
    yield "", "samples/s", "smallest to largest", "times the usual", "peak GB"
    for contender, label in LOADER.items():
        if contender in rows:
            row = rows[contender]
            spread = f"{row['smallest']:,.0f} to {row['largest']:,.0f}"
            memory = (row["peak_mb"] + sum(row["peak_workers_mb"])) / 1e3
            yield label, f"{row['images_per_second']:,.0f}", spread, f"{row['times_dataloader']:.1f}", f"{memory:.1f}"


def pack(result):
    """CPU time per photograph of packing, and of loading from what is packed."""
    yield "", "CPU ms per photograph", "smallest to largest", "times as fast"
    for row in result["rows"]:
        ms, spread = f"{row['cpu_us'] / 1e3:.2f}", f"{row['smallest'] / 1e3:.2f} to {row['largest'] / 1e3:.2f}"
        yield PACK[row["contender"]], ms, spread, f"{row['times']:.2f}"


def loader_options(results):
    """Samples per second by an option of the loader that differs from its default, a row for each value."""
    yield "", "decoding alone", "the whole pipeline"
    for name, result in results.items():
        speeds = {row["contender"]: row["images_per_second"] for row in result["rows"]}
        yield name, f"{speeds['decode']:,.0f}", f"{speeds['pipeline']:,.0f}"


def throughput(results):
    """A training's speed, beside that on one and the same batch, by network, batch and precision."""
    yield "network, batch, precision", "images/s", "of a fixed batch's", "waited", "gaps over 50 µs a step", "GPU GB"
    for name, result in results.items():
        (row,) = (row for row in result["rows"] if row["name"] == "training")
        waited = row["waited_host"] if row["waited_gpu"] is None else row["waited_gpu"]
        gaps = f"{result['gaps']['long_gaps']:.1f}" if result["gaps"] else "-"
        memory = f"{result['device_mb'] / 1e3:.1f}" if "device_mb" in result else "-"
        yield name, f"{row['images_per_second']:,.0f}", f"{row['of_step']:.1%}", f"{waited:.2%}", gaps, memory


def pretraining_pays(result):
    """Scores after fine-tuning from each start, in the scale of the papers; of ways also what they are to the paper's.

    That is the mean over the seeds of the difference in SAD between fine-tunings of the same seed.
    """
    ways = result.get("compare") == "ways"
    yield "start of fine-tuning", "SAD", "MSE e-3", "Grad", "Conn", *(["SAD, less the paper's"] if ways else [])
    for start, row in result["rows"].items():
        scaled = [(row[name], 1e3 if name == "mse" else 1) for name in METRICS]
        less = [write_difference(row)] if "less_paper" in row else [""] if ways else []
        yield start, *(f"{factor * cell['mean']:.1f} ± {factor * cell['sd']:.1f}" for cell, factor in scaled), *less


def write_difference(row):
    """Write a way's difference in SAD to the paper's text, as README and docs/training.md have it."""
    less = row["less_paper"]["sad"]
    return f"{less['mean']:+.1f} ± {less['sd']:.1f}"


OF_ONE = {
    "synthesize": synthesize, "loader": loader, "pack": pack, "pretraining_pays": pretraining_pays,
    "trimap_width": lambda result: trimap_width.table(result["rows"]),
}  # fmt: skip
OF_MANY = {"loader options": ("loader ", loader_options), "throughput": ("throughput ", throughput)}


def make_table(results, name):
    """Make the table ``name`` of a machine's results: lines of cells, the first its head."""
    if name in OF_MANY:
        prefix, function = OF_MANY[name]
        return list(function({key.removeprefix(prefix): results[key] for key in results if key.startswith(prefix)}))
    return list(OF_ONE[name.split()[0]](results[name]))


def fill(text, folder):
    """Put the tables of a folder of results in their places of a text."""

    def table(match):
        head, *rows = make_table(json.loads((folder / f"{match[1]}.json").read_text()), match[2])
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join(
            [f"<!-- {match[1]} {match[2]} -->", *(f"| {' | '.join(line)} |" for line in lines), "<!-- end -->"]
        )

    return re.sub(r"<!-- (\S+) ([^>]+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def draw_loaders(folder):
    """Draw the stages of the loader of each machine."""
    for path in folder.glob("*.json"):
        result = json.loads(path.read_text()).get("loader")
        if result:
            rows = [SimpleNamespace(**row) for row in result["rows"]]
            loader_stages.draw(rows, SimpleNamespace(**result["options"]), folder / f"loader-{path.stem}.png")


def draw_widths(results, images):
    """Draw the errors by the width of a trimap, a file for each judge."""
    for name, result in results.items():
        if name.startswith("trimap_width "):
            trimap_width.draw(
                images / f"{name.replace('_', '-').replace(' ', '-')}.png", result["title"], result["rows"]
            )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fill(page.read_text(), BENCHMARKS / "results"))
    draw_loaders(BENCHMARKS / "results")
    draw_widths(json.loads((BENCHMARKS / "results/cpu.json").read_text()), DOCS / "images")
