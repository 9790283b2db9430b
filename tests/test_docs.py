"""The README and the pages beside it: the example runs, and what they name exists."""

import ast
import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import dptmat
from dptmat.cli import dptmat as command
from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TORCHRUN = {
    "--nproc-per-node", "--max-restarts", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--standalone",
}  # fmt: skip
UNSHARE = {"--net", "--map-root-user"}
SBATCH = {
    "--account", "--array", "--gpus-per-node", "--nodes", "--partition", "--requeue", "--signal", "--time", "--wrap",
}  # fmt: skip
DOCKER = {"--build-arg", "--rm", "--gpus", "--ipc", "--user"}
SETTINGS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def options_of(any_command):
    """All spellings of a command's options."""
    context = click.Context(any_command, help_option_names=["-h", "--help"])
    return {
        option
        for parameter in any_command.get_params(context)
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option.startswith("--")
    }


def read(path):
    """Text of a page, with the lines of a command that goes on joined."""
    return re.sub(r"\\\n +", "", path.read_text(encoding="utf-8"))


def named_options(text):
    """The options that a text names; an arrow and the end of a comment are none."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def anchor(heading):
    """The anchor that a renderer of Markdown gives to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.slow
def test_the_python_example_of_the_readme_runs(tmp_path):
    example = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL).group(1)
    subprocess.run([sys.executable, "-c", example], check=True, cwd=tmp_path)


@each_document
def test_python_examples_name_what_there_is(path):
    for example in re.findall(r"```python\n(.*?)```", read(path), re.DOTALL):
        for node in ast.walk(ast.parse(example)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("dptmat"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "dptmat":
                assert hasattr(dptmat, node.attr)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SETTINGS:
                fields = {field.name for field in dataclasses.fields(SETTINGS[node.func.attr])}
                assert {keyword.arg for keyword in node.keywords} <= fields


@each_document
def test_each_command_has_the_options_it_is_shown_with(path):
    shown = re.findall(r"^ {4}(?:torchrun .*-m |docker run .* )?dptmat (\w+) +(.*)$", read(path), re.MULTILINE)
    assert shown or path.name not in ("README.md", "training.md", "evaluation.md")
    for name, rest in shown:
        assert named_options(rest) <= options_of(command.commands[name]), name


@each_document
def test_each_option_that_is_named_is_one(path):
    text = read(path)
    known = (
        TORCHRUN | UNSHARE | SBATCH | DOCKER | options_of(command).union(*map(options_of, command.commands.values()))
    )
    for script, rest in re.findall(r"python (benchmarks/\w+\.py)(.*)$", text, re.MULTILINE):
        source = (ROOT / script).read_text(encoding="utf-8")
        assert all(f'"{option}"' in source for option in named_options(rest)), script
    assert named_options(re.sub(r"python benchmarks/.*", "", text)) <= known


@each_document
def test_each_link_leads_to_a_file_and_its_heading(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", read(path)):
        if link.startswith("https://"):
            continue
        name, _, heading = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in map(anchor, headings), link


@each_document
def test_each_path_that_is_named_is_there(path):
    named = re.findall(r"`((?:benchmarks|docs|dptmat|kernels|pipelines|recipes|tests)/[^`\s]*)`", read(path))
    assert [name for name in named if not (ROOT / name).exists()] == []


@each_document
def test_each_target_of_make_is_one(path):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"(?:`|^ {4})make (\w+)", read(path), re.MULTILINE)
    assert set(named) <= set(targets)


def written_in_the_sources():
    """Every text in the sources; a blank stands for what is filled in later."""
    for folder in ("dptmat", "kernels", "pipelines"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else " " for part in node.values)
                    yield "".join(parts)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
    yield (ROOT / "Makefile").read_text(encoding="utf-8")


def test_each_message_of_the_troubleshooting_is_one():
    texts = [text.replace("`", "") for text in written_in_the_sources()]
    shown = re.findall(r"^\| ([^*|]+) \|", read(ROOT / "docs/troubleshooting.md"), re.MULTILINE)
    assert len(shown) > 50
    for symptom in set(shown) - {"symptom"}:
        message = re.sub(r"`--([a-z-]+)`", lambda option: option[1].replace("-", "_"), symptom).replace("`", "")
        for part in message.split("..."):
            assert any(part.strip(" ;:,") in text for text in texts), symptom


def test_every_page_is_linked_from_the_readme():
    text = README.read_text(encoding="utf-8")
    for path in DOCUMENTS[1:]:
        assert f"]({path.relative_to(ROOT).as_posix()})" in text


def test_one_version_of_ruff():
    pinned = re.search(r"ruff==([\d.]+)", (ROOT / "setup.py").read_text(encoding="utf-8")).group(1)
    hooks = re.findall(r"ruff==([\d.]+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert set(hooks) == {pinned}
