"""What ``import dptmat`` gives, when it is loaded, and that Python calls are as short as the command's."""

import logging
import resource
import subprocess
import sys

import pytest

import dptmat as library
from dptmat.config.pretrain import PretrainConfig
from dptmat.errors import UserError


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["pretrain", "--help"], ["evaluate", "--help"]])
def test_help_needs_no_torch(words):
    code = (
        "import sys, dptmat.cli\n"
        f"sys.argv = ['dptmat', *{words}]\n"
        "try:\n dptmat.cli.main()\n"
        "except SystemExit as ended:\n"
        " print([m for m in ('torch', 'numpy', 'numba', 'nvidia.dali', 'cupy') if m in sys.modules], ended.code)"
    )
    assert run_python(code).splitlines()[-1] in ("[] 0", "[] None")


@pytest.mark.timing
def test_the_first_word_comes_within_half_a_second():
    """By the processor's time: a shared machine may keep it waiting."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "dptmat", "--help"], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(seconds) < 0.5


def test_every_public_name_is_there_and_loaded_when_it_is_used():
    for name in library.__all__:
        assert getattr(library, name) is not None
    assert set(library.__all__) <= set(dir(library))
    assert library.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="module 'dptmat' has no attribute 'pretrian'"):
        library.pretrian  # noqa: B018
    assert run_python("import sys, dptmat; print('torch' in sys.modules)") == "False\n"


@pytest.mark.slow
def test_tasks_are_functions_also_after_their_modules_are_imported():
    code = "import dptmat.tasks.pretrain, dptmat\nprint(callable(dptmat.pretrain), callable(dptmat.evaluate))"
    assert run_python(code) == "True True\n"


def test_a_python_call_is_as_short_as_the_command(photographs, tmp_path, said):
    last = library.pretrain(
        data=photographs, out=tmp_path / "run", model="unet_resnet10t", size=64, batch_size=4, steps=1, device="cpu"
    )
    assert last == tmp_path / "run/checkpoints/step-000000001.pt"
    assert "72 photographs, 1 steps of 4 on cpu" in said()


def test_a_python_user_can_silence_it(photographs, tmp_path, capfd):
    logger = logging.getLogger("dptmat")
    logger.setLevel(logging.ERROR)
    try:
        library.pretrain(
            data=photographs, out=tmp_path / "run", model="unet_resnet10t", size=64, batch_size=4, steps=1, device="cpu"
        )
    finally:
        logger.setLevel(logging.NOTSET)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"data": "a", "out": "b", "batchsize": 4},
            r"unknown key 'batchsize'; did you mean batch_size\?",
        ),
        ({"data": "a"}, "missing: `out`"),
        ({"data": "a", "out": ""}, "`out` must be the path of a file or folder; got ''"),
        ({"data": "a", "out": "b\0c"}, "`out` must be the path of a file or folder"),
        ({"data": "a", "out": "b", "lr": float("inf")}, "`lr` must be a finite number; got inf"),
        ({"data": "a", "out": "b", "threads": 1_000_000}, "`threads` must be 0 to 1024; got 1000000"),
        ({"data": "a", "out": "b", "size": 65}, "`size` 65 is not a multiple of 32; use 64 or 96"),
    ],
)
def test_wrong_options_are_named_as_python_knows_them(options, message):
    with pytest.raises(UserError, match=message):
        library.pretrain(**options)


def test_a_former_name_is_taken_with_a_note(dptmat, tmp_path):
    """As an option and in a file; the present name on the command line wins."""
    words = ["pretrain", "--data", "a", "--out", "b", "--dry-run"]
    status, output, error = dptmat(*words, "--recompute")
    assert (status, error) == (0, "options: recompute is called grad_checkpointing now\n")
    assert "grad_checkpointing = true" in output
    assert "recompute" not in output
    (tmp_path / "c.toml").write_text("recompute = true\n")
    assert "grad_checkpointing = true" in dptmat(*words, "--config", tmp_path / "c.toml")[1]
    assert "grad_checkpointing = false" in dptmat(*words, "--config", tmp_path / "c.toml", "--no-grad-checkpointing")[1]


def test_an_empty_setting_is_as_one_that_is_left_out(dptmat):
    """As of a job script: --resume "$RESUME"; but not where one is required."""
    words = ["pretrain", "--data", "a", "--dry-run"]
    status, output, _ = dptmat(*words, "--out", "b", "--resume", "", "--quarantine", "")
    assert status == 0
    assert {'resume = ""', 'quarantine = ""'} <= set(output.splitlines())
    assert dptmat(*words, "--out", "")[::2] == (2, "dptmat: --out must be the path of a file or folder; got ''\n")


def test_a_tilde_is_the_home_folder_in_files_and_python_too(dptmat, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.toml").write_text('data = "~/photos"\nout = "~/run"\ninit = "~/w.pt"\nresume = "auto"\n')
    _, output, _ = dptmat("pretrain", "--config", tmp_path / "c.toml", "--dry-run")
    expected = {
        f'data = "{tmp_path}/photos"',
        f'out = "{tmp_path}/run"',
        f'init = "{tmp_path}/w.pt"',
        'resume = "auto"',
    }
    assert expected <= set(output.splitlines())


@pytest.mark.parametrize(
    ("given", "options"),
    [("photos", {}), (PretrainConfig(data="a", out="b"), {"seed": 1}), ({"data": "a", "out": "b"}, {})],
)
def test_settings_are_given_whole_or_by_name(given, options):
    with pytest.raises(TypeError, match=r"pretrain\(\) takes a PretrainConfig, or settings by name such as pretrain"):
        library.pretrain(given, **options)
