"""Shared by the tests: photographs on disk, the command, and a clear skip for what needs a GPU."""

import gc
import importlib
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes on the same cores: more threads would only get in their way
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from dptmat import cli
from dptmat.demo import write_photographs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# transformers looks for a package of this name, and would find our folder where tests are started beside it.
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]


@pytest.hookimpl(tryfirst=True)  # before the fixtures
def pytest_runtest_setup(item):
    """Beside other processes of tests, one thread, whatever an earlier test has left: sums differ with their number."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def heard_signals():
    """Interrupts are heard, also where a shell has started the tests in the background, and so had them ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Each kind of device in turn."""
    return request.param


@pytest.fixture
def freed():
    """Frees what a run in this process has held, of which Python sees a few objects and not the gigabyte."""
    yield
    gc.collect()


@pytest.fixture(scope="module", autouse=True)
def freed_after_all():
    """The same once for the tests of each file."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """Folder of 72 JPEG photographs; read only."""
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder)
    return folder


@pytest.fixture
def dptmat(capsys, monkeypatch):
    """Function that runs the command in this process: (exit status, standard output, standard error)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["dptmat", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    yield run
    logging.getLogger("dptmat").handlers.clear()


@pytest.fixture
def said(caplog):
    """Function that gives what the library has logged since the last call: text, each message ended by a newline."""
    caplog.set_level(logging.INFO, "dptmat")

    def text():
        messages = "".join(f"{record.getMessage()}\n" for record in caplog.records)
        caplog.clear()
        return messages

    return text


@pytest.fixture
def import_benchmark(monkeypatch):
    """Function that imports a program of benchmarks/ by its name, as if it ran there, for one test."""
    folder = Path(__file__).parent.parent / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module
    for path in folder.glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def torchrun():
    """Function that runs the command in two processes, which are one run."""

    def run(words):
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "-m",
            "dptmat",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*start, *words], check=True, env=environment, stdout=subprocess.DEVNULL)

    return run


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium, without a window, driven by Playwright, which brings no browser of its own here."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # as root, and in most containers, Chromium cannot have its sandbox; it opens nothing but our own page
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        yield browser
        browser.close()
