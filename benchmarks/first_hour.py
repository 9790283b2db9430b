"""Everything that only a GPU can show, in the order in which a fault would matter, on a machine that is new to it.

    make gpu
    python benchmarks/first_hour.py --out runs/gpu [--data imagenet/train]

First the tests that need a GPU, from the kernels to whole runs, then how fast it is. Each part has a limit of time and
a process of its own, so that one which hangs or crashes costs its own result alone. ``OUT/results.json`` holds what
came out, ``OUT/report.txt`` the same as a page that can be sent to somebody, and ``OUT/NAME.log`` all that a part has
said. A second call goes on where the first was stopped; parts that failed are done again.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from measure import describe_environment, write_result

from dptmat.demo import write_photographs

ROOT = Path(__file__).parent.parent
SHORT = ("--rounds", "3", "--seconds", "2")
LINES = 12  # of what a part has said last, on the page


@dataclass(frozen=True)
class Part:
    """A thing to find out.

    Attributes:
        question: What it answers.
        words: The words behind ``python``.
        minutes: After which it is ended.
        gives_json: Whether the last word is to be the path of a file of results.
    """

    question: str
    words: tuple[str, ...]
    minutes: float
    gives_json: bool = field(default=False)


def tests(question: str, minutes: float, *names: str) -> Part:
    paths = [f"tests/test_{name}.py" for name in names]
    return Part(question, ("-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "-m", "gpu", *paths), minutes)


def measured(question: str, minutes: float, program: str, *words: str) -> Part:
    return Part(question, (f"benchmarks/{program}.py", *words, "--json"), minutes, gives_json=True)


def list_parts(data: str, threads: int) -> dict[str, Part]:
    """List the parts in order, by name."""
    decoding = "--data", data, "--device", "cuda", "--contender", "decode", "--contender", "pipeline", *SHORT
    numbers = sorted({count for count in (4, 8, 16, threads) if count <= threads})
    return {
        "kernels": tests("Do the kernels give the CPU's bits?", 10, "cuda_source"),
        "loader": tests(
            "Does the data path give the CPU's views, and outlive bad files?", 10, "loader", "pretrain_graph",
            "finetune_graph",
        ),
        "dedicated decoder": tests("May the GPU's own JPEG decoder be used?", 10, "hardware_decoder"),
        "waits": tests("Does nothing wait for the GPU unasked?", 10, "no_host_wait", "data_wait"),
        "all tests": tests("Does the rest hold, whole runs included?", 20),
        "synthesize": measured("How near to the memory's speed is the kernel?", 5, "synthesize", "--device", "cuda"),
        **{
            f"loader, {count} threads": measured(
                "How many images a second?", 4, "loader", *decoding, "--threads", str(count)
            )
            for count in numbers
        },
        "loader, dedicated decoder": measured(
            "And with its own decoder?", 4, "loader", *decoding, "--hw-decoder-load", "0.65"
        ),
        **{
            f"throughput {model}": measured(
                "How long does training wait?", 6, "throughput", "--data", data, "--device", "cuda", "--model", model,
                "--batch-size", "64", *SHORT,
            )
            for model in ("matteformer", "gca", "unet_resnet50")
        },
    }  # fmt: skip


def do(part: Part, log: Path, json_path: Path) -> dict:
    """Do a part: how it went, in seconds and last lines, and the result that it wrote."""
    words = [*part.words, str(json_path)] if part.gives_json else part.words
    json_path.unlink(missing_ok=True)
    began, environment = time.monotonic(), {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(60 * part.minutes)
            state = "passed" if status == 0 else f"failed with status {status}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it has started
            process.wait()
            state = f"ended after {part.minutes:g} minutes"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    if "pytest" in part.words and state == "passed" and " passed" not in "".join(lines[-1:]):
        state = "no test was run"
    result = json.loads(json_path.read_text()) if json_path.exists() else None
    return {
        "state": state, "seconds": round(time.monotonic() - began, 1), "command": " ".join(["python", *part.words]),
        "last lines": lines[-LINES:], "result": result,
    }  # fmt: skip


def write_page(path: Path, parts: dict[str, Part], results: dict) -> None:
    """Write what came out as text: the machine, a line for each part, and what those said that did not pass."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    text = [
        f"dptmat on {machine['devices'].get('cuda', 'no GPU')}, driver {machine['driver']}, {machine['date']}",
        f"commit {machine['commit']}; {versions}",
        "",
    ]
    for name, part in parts.items():
        done = results["parts"].get(name, {"state": "not done yet", "seconds": 0, "last lines": []})
        text.append(f"{name:28} {done['state']:24} {done['seconds']:7.1f} s   {part.question}")
        text += [f"    {line}" for line in done["last lines"] if done["state"] != "passed" or part.gives_json]
    path.write_text("\n".join(text) + "\n", encoding="utf-8")


@click.command()
@click.option(
    "--out", default="runs/gpu", show_default=True, metavar="DIR", type=click.Path(path_type=Path),
    help="Folder of the results.",
)  # fmt: skip
@click.option("--data", metavar="DIR|FILE", help="Photographs to measure on; default: those of the demo.")
@click.option("--only", default="", metavar="WORDS", help="Only parts whose names begin so, done or not.")
@click.option("--anyway", is_flag=True, help="Also where there is no GPU: to see that it runs.")
def main(out, data, only, anyway):
    """Find out in an hour what a GPU makes of everything."""
    if not torch.cuda.is_available() and not anyway:
        raise click.ClickException("PyTorch sees no GPU; check the driver and the torch build, or run it elsewhere")
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = str(out / "photographs")
        Path(data).mkdir(exist_ok=True)
        write_photographs(data)
    parts, path = list_parts(str(Path(data).absolute()), len(os.sched_getaffinity(0))), out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    results["machine"] = describe_environment(["cuda"] if torch.cuda.is_available() else [])
    for name, part in parts.items():
        done = results["parts"].get(name, {}).get("state") == "passed"
        if not name.startswith(only) or (done and not only):
            continue
        click.echo(f"{name}: {part.question} (at most {part.minutes:g} minutes)")
        log = out / f"{name.replace(', ', '-').replace(' ', '-')}.log"
        results["parts"][name] = do(part, log, out / "part.json")
        click.echo(f"    {results['parts'][name]['state']}, {results['parts'][name]['seconds']} s")
        write_result(path, results)
        write_page(out / "report.txt", parts, results)
    failed = [name for name, done in results["parts"].items() if done["state"] != "passed"]
    click.echo(f"{out / 'report.txt'}: {len(results['parts']) - len(failed)} of {len(parts)} parts passed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
