"""Write the tables of the README from the results that the benchmarks have left.

    python benchmarks/tables.py

Between ``<!-- NAME -->`` and ``<!-- end -->`` stands the table of ``results/NAME.json``, whose name begins with that of
the benchmark: ``synthesize-cpu``, ``loader-h200``.
"""

import json
import re
from pathlib import Path

BENCHMARKS = Path(__file__).parent
README = BENCHMARKS.parent / "README.md"
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
    "pipeline out=": "over the memory of the batch before",
    "DataLoader": "the usual `DataLoader` with OpenCV",
    "DataLoader direct": "`DataLoader` with OpenCV, written with care",
    "DataLoader albumentations": "`DataLoader` with albumentations",
}


def synthesize(result):
    """Milliseconds per sample of 224x224 in float32, of the largest batch, on one thread where threads are counted."""
    rows = [row for row in result["rows"] if row["height"] == 224 and row["dtype"] == "float32"]
    rows = [row for row in rows if row["layout"] == "NCHW" and row["threads"] in (None, 1)]
    batch = max(row["batch"] for row in rows)
    rows = {row["version"]: row for row in rows if row["batch"] == batch}
    yield "", "ms per sample", ""
    for version, label in SYNTHESIZE.items():
        times = rows[version]["times_dptmat"]
        yield label, f"{rows[version]['ms_per_sample']:.2f}", f"{times:.1f} times `synthesize`" if times > 1 else ""


def loader(result):
    """Samples per second of each stage and of the DataLoaders, with the memory of all processes."""
    rows = {row["contender"]: row for row in result["rows"]}
    yield "", "samples/s", "smallest to largest", "times the usual", "peak GB"
    for contender, label in LOADER.items():
        row = rows[contender]
        spread = f"{row['smallest']:,.0f} to {row['largest']:,.0f}"
        memory = (row["peak_mb"] + sum(row["peak_workers_mb"])) / 1e3
        yield label, f"{row['images_per_second']:,.0f}", spread, f"{row['times_dataloader']:.1f}", f"{memory:.1f}"


def pretraining_pays(result):
    """Scores after fine-tuning from each start, in the scale of the papers."""
    yield "start of fine-tuning", "SAD", "MSE e-3", "Grad", "Conn"
    for start, row in result["rows"].items():
        scaled = [(row[name], 1e3 if name == "mse" else 1) for name in ("sad", "mse", "grad", "conn")]
        yield start, *(f"{factor * cell['mean']:.1f} ± {factor * cell['sd']:.1f}" for cell, factor in scaled)


TABLES = {"synthesize": synthesize, "loader": loader, "pretraining_pays": pretraining_pays}


def fill(text, results):
    """Put the tables of a folder of results in their places of a text."""

    def table(match):
        name = match[1]
        head, *rows = TABLES[name.partition("-")[0]](json.loads((results / f"{name}.json").read_text()))
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join([f"<!-- {name} -->", *(f"| {' | '.join(line)} |" for line in lines), "<!-- end -->"])

    return re.sub(r"<!-- ([\w-]+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(fill(README.read_text(), BENCHMARKS / "results"))
