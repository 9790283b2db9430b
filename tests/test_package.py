"""The package as a user gets it: the wheel works outside the checkout, and imports keep to the rules."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for folder in ("dptmat", "kernels", "pipelines", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
]

# Parts that any other may import.
LEAVES = ("dptmat.errors", "dptmat.defaults", "dptmat.device", "dptmat.file_kinds")
# Of `dptmat.data`, what the data path reads files by.
READERS = ("dptmat.data.image_io", "dptmat.data.color_profiles", "dptmat.data.jpeg")


def imported(path):
    """Names of the modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_keep_to_the_rules(path):
    folder = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        top = name.split(".")[0]
        assert top not in ("kernels", "pipelines"), "they are dptmat.kernels and dptmat.pipelines"
        assert not top.startswith(("test_", "conftest")), "what tests share is in modules of its own"
        if folder in ("dptmat", "kernels", "pipelines"):
            assert top != "cupy" or folder == "kernels"
            assert not name.startswith("nvidia.dali") or path == ROOT / "pipelines/_dali.py"
        if folder == "kernels":
            assert top != "dptmat" or name.startswith(("dptmat.kernels", "dptmat.defaults"))
        if folder == "pipelines":
            assert top != "dptmat" or name.startswith(
                (
                    "dptmat.kernels",
                    "dptmat.pipelines",
                    "dptmat.data.image_io",
                    "dptmat.data.color_profiles",
                    "dptmat.data.jpeg",
                    *LEAVES,
                )
            )


@pytest.mark.slow
def test_import_is_light():
    """Neither DALI nor CuPy nor timm is loaded by ``import dptmat``, nor by an operator on CPU tensors."""
    code = (
        "import sys, torch, dptmat\n"
        "views = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)\n"
        "dptmat.synthesize(views, torch.arange(2), seed=0)\n"
        "print([name for name in ('cupy', 'timm', 'nvidia.dali') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of what the Dockerfile installs, so that nothing left in the checkout gets into it."""
    sources, folder = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for copied in re.findall(r"^COPY (.*) \S+$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE):
        for name in copied.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, sources)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, sources], check=True)
    return next(folder.glob("*.whl"))


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()


def dockers_extras():
    """The extras that the Dockerfile installs: those of its default stack, and of the other that it names."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    named = re.search(r'pip install .*"\.\[\$\{STACK\},(.*)\]"', text)[1].split(",")
    return [*named, *re.findall(r"STACK=(\w+)", text)]


def test_the_wheel_holds_every_source(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, inside in (("dptmat", "dptmat"), ("kernels", "dptmat/kernels"), ("pipelines", "dptmat/pipelines")):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".cu", ".cuh", ".html", ".css", ".md", ".json", ".typed"):
                assert f"{inside}/{path.relative_to(ROOT / folder).as_posix()}" in names
    assert not any(name.startswith(("kernels", "pipelines", "tests")) for name in names)
    assert {f"Provides-Extra: {name}" for name in dockers_extras()} <= set(metadata(wheel).splitlines())


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import torch, dptmat, dptmat.kernels, dptmat.pipelines.loader\n"
        "trimap = dptmat.random_trimap(torch.arange(2), seed=0, size=(64, 64))\n"
        "print(dptmat.__file__, dptmat.kernels.__file__, dptmat.pipelines.__file__, int((trimap == 1).sum()))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    *files, unknown = ended.stdout.split()
    assert files == [str(tmp_path / "dptmat" / name / "__init__.py") for name in (".", "kernels", "pipelines")]
    assert int(unknown) > 0
