"""The command: bad input gives one line and exit status 2, options and files agree."""

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig

import cv2
import pytest
import torch


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "{empty}"], "holds no photograph"),
        (["--data", "{tmp}/missing"], "missing does not exist"),
        (["--size", "225"], "--size 225 is not a multiple of 32; use 224 or 256"),
        (["--size", "33"], "--size must be 64 to 8192; got 33"),
        (["--unknown", "1.5"], "--unknown must be 0.0 to 1.0; got 1.5"),
        (["--unknown", "0.8", "--foreground", "0.3"], "add up to more than 1"),
        (["--batch-size", "1"], "--batch-size must be 2 to 1048576; got 1"),
        (["--batch-size", "100"], "--batch-size 100 is more than the 72 photographs"),
        (["--batch-size", "6", "--micro-batch", "4"], "use --micro-batch 2, 3, 6"),
        (["--model", "matteforner"], "did you mean 'matteformer'"),
        (["--model", "unet_resnet999"], "unet_resnet999"),
        (["--losses", "l1,l2"], "--losses l1,l2: choose from l1, comp, lap"),
        (["--losses", "l1,l1"], "each once"),
        (["--layer-decay", "0"], "--layer-decay must be 0.01 to 1.0; got 0.0"),
        (["--layer-decay", "1.5"], "--layer-decay must be 0.01 to 1.0; got 1.5"),
        (["--layer-decay", "0.65", "--model", "gca"], "--layer-decay 0.65 needs an encoder in layers, which gca has"),
        (["--layer-decay", "0.65", "--model", "mgmatting"], "which mgmatting has not; leave it out, or take"),
        (["--layer-decay", "0.65", "--model", "unet_poolformer_s12"], "no --layer-decay for it; leave it out"),
        (["--milestones", "0.3:0.1"], "--milestones 0.3:0.1 need --schedule milestones, got step; give that"),
        (["--schedule", "milestones"], "--milestones must be such as 0.3:0.1,0.9:0.05, shares of the run in rising"),
        (["--schedule", "milestones", "--milestones", "0.9:0.1,0.3:0.05"], "got '0.9:0.1,0.3:0.05'"),
        (["--schedule", "milestones", "--milestones", "0.3:-0.1"], "with the factor of --lr from there on, more than"),
        (["--schedule", "milestones", "--milestones", "0.3:0.1,0.3:0.05"], "between 0 and 1, each with the factor"),
        (["--schedule", "milestones", "--milestones", "30:0.1"], "got '30:0.1'"),
        (["--schedule", "milestones", "--milestones", "0.3"], "got '0.3'"),
        (["--schedule", "milestones", "--milestones", "0.3:0.1:2"], "got '0.3:0.1:2'"),
        (["--schedule", "milestones", "--milestones", "nan:0.1"], "got 'nan:0.1'"),
        (["--schedule", "milestones", "--milestones", "0.3:inf"], "got '0.3:inf'"),
        (["--cell", "65", "--size", "64"], "--cell 65 is more than --size 64"),
        (["--scale-min", "2"], "--scale-min 2.0 is more than --scale-max"),
        (["--alpha-mode", "nothing"], "'nothing' is not one of 'pixel', 'block'"),
        (["--epochs", "many"], "'many' is not a valid integer"),
        (["--seed", "-1"], "--seed must be 0 to 18446744073709551615"),
        (["--amp", "fp16"], "--amp fp16 needs a GPU"),
        (["--speed", "9"], "No such option"),
        (["--config", "{tmp}/unknown.toml"], "unknown.toml: unknown key 'batchsize'; did you mean batch_size?"),
        (["--config", "{tmp}/type.toml"], "--epochs must be of type int, got 'ten'"),
        (["--config", "{tmp}/broken.toml"], "broken.toml cannot be read as TOML"),
        (["--config", "{tmp}/none.toml"], "none.toml cannot be read as TOML"),
        (["--resume", "{tmp}/foreign.pt"], "foreign.pt has no config, data_fingerprint, micro_batch, model"),
        (["--out", "{tmp}/unknown.toml"], "unknown.toml"),
    ],
)
def test_bad_input_gives_one_line_and_status_2(dptmat, tmp_path, photographs, words, message):
    if message.endswith("GPU") and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    (tmp_path / "empty").mkdir()
    (tmp_path / "unknown.toml").write_text("batchsize = 4\n")
    (tmp_path / "type.toml").write_text('epochs = "ten"\n')
    (tmp_path / "broken.toml").write_text("epochs = = 4\n")
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    given = [word.format(tmp=tmp_path, empty=tmp_path / "empty") for word in words]
    usual = {"--data": photographs, "--out": tmp_path / "out", "--size": 64, "--batch-size": 4, "--steps": 1}
    rest = [word for pair in usual.items() if pair[0] not in given for word in pair]
    status, output, error = dptmat("pretrain", *given, *rest)
    assert status == 2
    assert output == ""
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out/checkpoints").exists()


def test_data_and_out_must_be_given(dptmat):
    status, _, error = dptmat("pretrain")
    assert status == 2
    assert error == "dptmat: missing: --data, --out; give each as an option or as a key of the --config file\n"


def test_the_command_line_wins_over_the_file(dptmat, tmp_path):
    (tmp_path / "c.toml").write_text('data = "a"\nout = "b"\nsize = 64\nlr = 1\n')
    status, output, _ = dptmat("pretrain", "--config", tmp_path / "c.toml", "--size", "96", "--no-trimap", "--dry-run")
    assert status == 0
    assert {'data = "a"', "size = 96", "lr = 1", "trimap = false", "epochs = 100"} <= set(output.splitlines())


def test_printed_settings_are_a_configuration_file(dptmat, tmp_path):
    _, once, _ = dptmat("pretrain", "--data", "a", "--out", "b", "--seed", str(2**64 - 1), "--dry-run")
    (tmp_path / "c.toml").write_text(once)
    assert dptmat("pretrain", "--config", tmp_path / "c.toml", "--dry-run") == (0, once, "")


def test_index_names_bad_files_and_writes_the_rest(dptmat, tmp_path, photographs):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/bad.jpg").write_bytes(b"text")
    first = sorted(photographs.iterdir())[0]
    (tmp_path / "data/good.jpg").write_bytes(first.read_bytes())
    status, output, _ = dptmat("index", "--data", tmp_path / "data", "--out", tmp_path / "list.txt")
    assert status == 0
    assert f"left out: {tmp_path}/data/bad.jpg: " in output
    assert "1 photographs, 1 left out" in output
    assert (tmp_path / "list.txt").read_text() == f"{tmp_path}/data/good.jpg\n"


def test_index_may_write_over_the_list_it_reads(dptmat, tmp_path, photographs):
    names = sorted(map(str, photographs.iterdir()))
    (tmp_path / "list.txt").write_text("\n".join([*names, f"{tmp_path}/gone.jpg"]))
    status, output, _ = dptmat("index", "--data", tmp_path / "list.txt", "--out", tmp_path / "list.txt")
    assert status == 0
    assert "72 photographs, 1 left out" in output
    assert (tmp_path / "list.txt").read_text().splitlines() == names


def test_index_that_cannot_be_written_is_refused_before_the_work(dptmat, tmp_path, photographs):
    status, output, error = dptmat("index", "--data", photographs, "--out", tmp_path / "missing/list.txt")
    assert (status, output) == (2, "")
    assert f"--out {tmp_path}/missing/list.txt" in error


def test_preview_writes_a_picture(dptmat, tmp_path, photographs):
    status, output, _ = dptmat("preview", "--data", photographs, "--out", tmp_path / "p.png", "--size", "64")
    assert (status, output) == (0, f"{tmp_path}/p.png\n")
    assert cv2.imread(str(tmp_path / "p.png")).shape == (24 + 8 * 64, 5 * 64, 3)


@pytest.mark.parametrize(
    ("name", "message"), [("p.nothing", "ends in .png"), ("missing/p.png", "is a folder or in none; give the name")]
)
def test_preview_that_cannot_be_written(dptmat, tmp_path, photographs, name, message):
    status, _, error = dptmat("preview", "--data", photographs, "--out", tmp_path / name, "--size", "64")
    assert status == 2
    assert message in error


def test_help_lists_every_option_with_its_default(dptmat):
    _, output, _ = dptmat("pretrain", "--help")
    for shown in ("--batch-size", "[default: 512]", "--lr", "[default: 0.0003]", "PIXELS", "Augmentation:"):
        assert shown in " ".join(output.split())


def start_of(kind):
    """Words that start the command: the script of this environment, its entry point where there is none, the module."""
    if kind == "module":
        return [sys.executable, "-m", "dptmat"]
    script = shutil.which("dptmat", path=sysconfig.get_path("scripts"))
    if script:
        return [script]
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="dptmat")
    code = f"import sys; sys.argv[0] = 'dptmat'; from {entry.module} import {entry.attr} as main; main()"
    return [sys.executable, "-c", code]


@pytest.mark.parametrize("kind", ["script", "module"])
def test_the_installed_command_runs(kind, tmp_path):
    def run(*words):
        return subprocess.run([*start_of(kind), *words], capture_output=True, text=True, cwd=tmp_path)

    assert run("--version").stdout == f"dptmat, version {importlib.metadata.version('dptmat')}\n"
    wrong = run("pretrain", "--config", "missing.toml", "--dry-run")
    assert wrong.returncode == 2
    assert "missing.toml cannot be read as TOML" in wrong.stderr
