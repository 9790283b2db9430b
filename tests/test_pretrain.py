"""The task end to end: it learns, it goes on after a kill to the same bits, and two processes are one run."""

import copy
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import torch
from mattes import shades, soft_disc
from options import as_words

from dptmat.config.pretrain import PretrainConfig
from dptmat.contact_sheets import preview_sheet, show_views
from dptmat.data.cases import pair
from dptmat.errors import UserError
from dptmat.tasks import pretrain as task
from dptmat.tasks.evaluate import evaluate
from dptmat.tasks.pretrain import pretrain, preview
from dptmat.training import bottleneck, checkpoint
from dptmat.weights.load import load_network

pytestmark = pytest.mark.usefixtures("freed")

SMALL = {"size": 64, "batch_size": 4, "model": "unet_resnet10t", "log_every": 1}


def run(data, out, **options):
    return pretrain(PretrainConfig(data=str(data), out=str(out), **{**SMALL, **options}))


def losses(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "step" in line}


def same_state(a, b):
    """Whether two nested states hold the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_state, a, b))
    return a == b


def command(data, out, *more, **options):
    options = {**SMALL, **options}
    words = as_words(options)
    return ["pretrain", "--data", str(data), "--out", str(out), *words, *more]


@pytest.mark.slow
def test_the_loss_falls_and_everything_is_written(photographs, tmp_path):
    last = run(photographs, tmp_path / "run", steps=25, lr=2e-3, alpha_mode="block")
    loss = losses(tmp_path / "run")
    assert list(loss) == list(range(1, 26))
    assert sum(loss[step] for step in range(21, 26)) < 0.8 * sum(loss[step] for step in range(1, 6))
    assert last == tmp_path / "run/checkpoints/step-000000025.pt"
    assert cv2.imread(str(tmp_path / "run/preview.png")).shape == (24 + 4 * 64, 5 * 64, 3)
    assert cv2.imread(str(tmp_path / "run/predictions.png")).shape == (24 + 4 * 64, 3 * 64, 3)
    assert list((tmp_path / "run/tensorboard").glob("events*"))
    assert "batch_size = 4" in (tmp_path / "run/config.toml").read_text()


@pytest.mark.slow
def test_a_run_says_how_long_it_waited_and_once_what_limits_its_data(photographs, tmp_path, monkeypatch, said):
    monkeypatch.setattr(bottleneck, "STEPS", 2)
    monkeypatch.setattr(bottleneck, "SHARE", 0.0)
    monkeypatch.setattr(bottleneck, "_SECONDS", 0.05)
    run(photographs, tmp_path / "run", steps=8)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert all(0 < line["waited"] < 1 and line["waited_host"] == line["waited"] for line in lines if "loss" in line)
    told = [(line["step"], line["advice"]) for line in lines if "advice" in line]
    assert [step for step, _ in told] == [3]  # two after the first report
    printed = said()
    assert told[0][1] in printed
    assert re.search(r"\nwaited for data \d+\.\d% of \d+ s\n", printed)


@pytest.mark.slow
def test_matteformer_takes_a_step(photographs, tmp_path):
    run(photographs, tmp_path / "run", steps=1, batch_size=2, model="matteformer")
    assert losses(tmp_path / "run")[1] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("amp", ["auto", "fp16", "off"])
def test_steps_on_a_gpu_are_finite(photographs, tmp_path, amp):
    run(photographs, tmp_path / "run", steps=5, amp=amp, model="matteformer")
    assert [step for step, loss in losses(tmp_path / "run").items() if loss < 10] == [1, 2, 3, 4, 5]


def test_without_the_trimap_the_network_sees_three_channels(photographs, tmp_path):
    last = run(photographs, tmp_path / "run", steps=1, trimap=False)
    model = checkpoint.load(last)["model"]
    assert model["encoder.backbone.conv1.0.weight"].shape[1] == 3


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(photographs, tmp_path):
    """SIGKILL at two places that are no checkpoints, in the middle of whatever the process was doing."""
    steps = {"steps": 8, "save_every": 2, "keep": 9}
    whole = run(photographs, tmp_path / "whole", **steps)
    words = [
        sys.executable,
        "-m",
        "dptmat",
        *command(photographs, tmp_path / "killed", "--resume", "auto", **steps),
    ]
    log = tmp_path / "killed/log.jsonl"
    for enough in (3, 7):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        while not log.exists() or max(losses_so_far(log), default=0) < enough:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    resumed = checkpoint.load(checkpoint.latest(tmp_path / "killed/checkpoints"))
    expected = checkpoint.load(whole)
    for key in ("model", "optimizer", "scaler", "step"):
        assert same_state(resumed[key], expected[key]), key
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def losses_so_far(log):
    """Steps in a log that may end in the middle of a line."""
    return [json.loads(line)["step"] for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.slow
def test_micro_batches_and_processes_do_not_change_the_order(photographs, tmp_path, monkeypatch):
    seen = []
    synthesize_batch = task.synthesize_batch
    monkeypatch.setattr(
        task, "synthesize_batch", lambda views, *rest: (seen.append(views.ids), synthesize_batch(views, *rest))[1]
    )
    for micro_batch in (8, 4):
        run(photographs, tmp_path / str(micro_batch), steps=2, batch_size=8, micro_batch=micro_batch)
    preview, *whole, _ = seen[:4]  # the last one is of the predictions
    assert torch.equal(torch.cat(whole), torch.arange(16))
    assert torch.equal(preview, torch.arange(8))
    preview, *halves, _ = seen[4:]
    assert [part.tolist() for part in halves] == [list(range(first, first + 4)) for first in (0, 4, 8, 12)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"trimap": False},
        *(
            pytest.param(other, marks=pytest.mark.exhaustive)
            for other in ({}, {"grad_checkpointing": True, "model": "matteformer"})
        ),
    ],
)
def test_batches_are_made_over_each_other_and_nothing_computed_changes(photographs, tmp_path, monkeypatch, options):
    synthesize_batch = task.synthesize_batch
    places, states = [], []
    for reused in (True, False):

        def make(views, settings, out, reused=reused):
            batch = synthesize_batch(views, settings, out if reused else None)
            places[-1].append(batch.input.data_ptr())
            return batch if reused else copy.deepcopy(batch)

        places.append([])
        monkeypatch.setattr(task, "synthesize_batch", make)
        options = {"steps": 3, "batch_size": 4, "micro_batch": 2, **options}
        states.append(checkpoint.load(run(photographs, tmp_path / str(reused), **options)))
    assert all(same_state(states[0][key], states[1][key]) for key in ("model", "optimizer"))
    assert losses(tmp_path / "True") == losses(tmp_path / "False")
    assert len(set(places[0])) == 1
    assert len(places[0]) == len(places[1]) == 8  # three steps, the preview and the predictions
    for name in ("preview", "predictions"):
        assert (tmp_path / f"True/{name}.png").read_bytes() == (tmp_path / f"False/{name}.png").read_bytes()


@pytest.mark.slow
def test_two_processes_average_the_gradients_that_one_accumulates(photographs, tmp_path, torchrun):
    """The same micro-batches, whether one process takes all four or two take two each."""
    options = {"steps": 1, "batch_size": 8, "micro_batch": 2, "clip": 0}
    run(photographs, tmp_path / "one", **options)
    torchrun(command(photographs, tmp_path / "two", **options))
    one, two = (first_moments(tmp_path / name) for name in ("one", "two"))
    assert (one - two).norm() < 1e-5 * one.norm()  # float32 sums in another order


@pytest.mark.exhaustive
def test_two_processes_report_the_mean_and_go_on(photographs, tmp_path, torchrun):
    options = {"steps": 2, "batch_size": 8, "micro_batch": 4, "lr": 0, "save_every": 1}
    run(photographs, tmp_path / "one", **options)
    (tmp_path / "data").symlink_to(photographs)
    torchrun(command(tmp_path / "data", tmp_path / "two", **options))
    for step, loss in losses(tmp_path / "one").items():
        assert losses(tmp_path / "two")[step] == pytest.approx(loss, rel=1e-6)
    (tmp_path / "two/checkpoints/step-000000002.pt").unlink()
    torchrun(command(tmp_path / "data", tmp_path / "two", "--resume", "auto", **options))
    assert losses(tmp_path / "two")[2] == pytest.approx(losses(tmp_path / "one")[2], rel=1e-6)


def first_moments(out):
    """The gradient of a run's only step, up to Adam's factor, as one vector."""
    states = checkpoint.load(checkpoint.latest(out / "checkpoints"))["optimizer"]["state"]
    return torch.cat([states[key]["exp_avg"].flatten() for key in sorted(states)])


def test_a_bad_photograph_is_named_and_the_run_goes_on(photographs, tmp_path, said):
    (tmp_path / "data").mkdir()
    for path in sorted(photographs.iterdir())[:8]:
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "data/astronaut_03.jpg").write_text("not a photograph\n" * 9)
    run(tmp_path / "data", tmp_path / "run", steps=2)
    printed = said()
    assert "left out: " in printed
    assert "astronaut_03.jpg" in printed
    assert "1 of 8 photographs left out" in printed
    assert "astronaut_03.jpg" in (tmp_path / "run/log.jsonl").read_text()


@pytest.mark.slow
def test_resuming_with_other_options_is_refused(photographs, tmp_path):
    run(photographs, tmp_path / "run", steps=1)
    with pytest.raises(UserError, match="holds another run; go on with it by `resume` auto"):
        run(photographs, tmp_path / "run", steps=1)
    with pytest.raises(UserError, match="`seed` is 5, but the run of .* was begun with 0"):
        run(photographs, tmp_path / "run", steps=1, seed=5, resume="auto")
    (tmp_path / "other").mkdir()
    for path in sorted(photographs.iterdir())[:5]:
        (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="5 photographs are not what the run of .* was begun with"):
        run(tmp_path / "other", tmp_path / "run", steps=1, resume="auto")
    with pytest.raises(UserError, match=r"checkpoint .*nowhere.pt cannot be read"):
        run(photographs, tmp_path / "new", steps=1, resume=str(tmp_path / "nowhere.pt"))


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_is_refused(photographs, tmp_path):
    state = checkpoint.load(run(photographs, tmp_path / "run", steps=1))
    for part in ("model", "optimizer"):
        torch.save({**state, part: {}}, tmp_path / "changed.pt")
        with pytest.raises(UserError, match="changed.pt does not fit unet_resnet10t"):
            run(photographs, tmp_path / "new", steps=1, resume=str(tmp_path / "changed.pt"))


@pytest.mark.slow
def test_a_finished_run_is_resumed_to_its_end(photographs, tmp_path):
    first = run(photographs, tmp_path / "run", steps=1)
    content = first.read_bytes()
    assert run(photographs, tmp_path / "run", steps=1, resume="auto") == first
    assert first.read_bytes() == content


def test_preview_shows_the_first_samples_of_the_run(photographs, tmp_path, monkeypatch):
    first = []
    synthesize_batch = task.synthesize_batch

    def note(views, *rest):
        batch = synthesize_batch(views, *rest)
        first.append((views, copy.deepcopy(batch)))  # the next one is written over it
        return batch

    monkeypatch.setattr(task, "synthesize_batch", note)
    run(photographs, tmp_path / "run", steps=1)
    views, batch = first[1]  # the first is the preview's own
    trained_on = preview_sheet(*show_views(views, batch.pairing), batch, rows=8)
    written = cv2.cvtColor(cv2.imread(str(tmp_path / "run/preview.png")), cv2.COLOR_BGR2RGB)
    assert (written == trained_on).all()
    settings = PretrainConfig(data=str(photographs), out="unused", **SMALL)
    assert (preview(settings) == trained_on).all()


@pytest.mark.slow
def test_a_run_does_not_go_on_in_the_folder_of_another(photographs, tmp_path):
    run(photographs, tmp_path / "one", steps=2, save_every=1)
    run(photographs, tmp_path / "two", steps=1)
    other = str(tmp_path / "one/checkpoints/step-000000002.pt")
    with pytest.raises(UserError, match="is not of the run that `out` .*two holds"):
        run(photographs, tmp_path / "two", steps=2, resume=other)
    assert run(photographs, tmp_path / "three", steps=2, save_every=1, resume=other).exists()


@pytest.mark.slow
def test_going_back_to_an_earlier_step_drops_the_later_ones(photographs, tmp_path):
    run(photographs, tmp_path / "run", steps=3, save_every=1)
    folder = tmp_path / "run/checkpoints"
    before = checkpoint.load(checkpoint.latest(folder))
    earlier = str(folder / "step-000000001.pt")
    last = run(photographs, tmp_path / "run", steps=3, save_every=3, keep=1, resume=earlier)
    assert [path.name for path in folder.iterdir()] == [last.name] == ["step-000000003.pt"]
    assert same_state(checkpoint.load(last)["model"], before["model"])


@pytest.mark.parametrize("command", ["pretrain", "preview"])
def test_one_photograph_is_too_few_whatever_the_batch(dptmat, photographs, tmp_path, command):
    """The message must not advise a batch that is refused in its turn."""
    (tmp_path / "list.txt").write_text(f"{sorted(photographs.iterdir())[0]}\n")
    status, _, error = dptmat(command, "--data", tmp_path / "list.txt", "--out", tmp_path / "out.png")
    assert (status, error) == (
        2,
        f"dptmat: --data {tmp_path}/list.txt holds one photograph; at least 2 are needed, one laid over the other\n",
    )


def test_a_preview_takes_a_list_from_a_pipe(dptmat, photographs, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    lines = "".join(f"{path}\n" for path in sorted(photographs.iterdir())[:9])
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(lines), daemon=True)
    writer.start()
    status, _, error = dptmat("preview", "--data", tmp_path / "pipe", "--out", tmp_path / "a.png", "--size", "64")
    assert status == 0, error
    assert (tmp_path / "a.png").exists()


@pytest.fixture
def real(tmp_path):
    """Two images with their trimaps and mattes: the options that validate by them; one has a single pixel."""
    folders = {f"val_{kind}": tmp_path / "val" / kind for kind in ("image", "trimap", "alpha")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    alpha = soft_disc(90, 100, 30.0)
    trimap = np.where(alpha == 0, 0, np.where(alpha == 255, 255, 128)).astype(np.uint8)
    for name, rows in (("disc.png", slice(None)), ("dot.png", slice(20, 21))):
        columns = slice(50, 51) if name == "dot.png" else slice(None)
        for kind, picture in (("image", shades(90, 100, 3)), ("trimap", trimap), ("alpha", alpha)):
            cv2.imwrite(str(folders[f"val_{kind}"] / name), picture[rows, columns])
    assert cv2.imread(str(folders["val_trimap"] / "dot.png"), 0).item() == 128
    return {option: str(folder) for option, folder in folders.items()}


def validations(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["validation"] for line in lines if "validation" in line}


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["unet_resnet10t", pytest.param("gca", marks=pytest.mark.exhaustive)]
)  # batch norms; spectral norms and attention
def test_a_validation_changes_nothing_of_the_run(photographs, tmp_path, real, model, said):
    """Equal bits of losses, weights, running means and optimizer, whether and by what a run is validated."""
    options = {"steps": 4, "save_every": 2, "model": model, "device": "cpu"}
    plain = checkpoint.load(run(photographs, tmp_path / "plain", **options))
    last = run(photographs, tmp_path / "validated", **options, **real)
    validated = checkpoint.load(last)
    for part in ("model", "optimizer", "scaler", "running_norm"):
        assert same_state(validated[part], plain[part]), part
    lines = [json.loads(line) for line in (tmp_path / "validated/log.jsonl").read_text().splitlines()]
    losses_of = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert losses_of == losses(tmp_path / "plain")
    assert list(validations(tmp_path / "validated")) == [0, 2, 4]
    assert not (tmp_path / "validated/checkpoints/best.pt").exists()
    assert "  without trimaps SAD " in said()
    # What is logged is what the evaluation says of the checkpoint.
    network, _ = load_network(last)
    cases = pair(image=real["val_image"], trimap=real["val_trimap"], alpha=real["val_alpha"])
    logged = validations(tmp_path / "validated")[4]
    for trimap, ending in (("files", ""), ("all-unknown", "_without_trimap")):
        mean = evaluate(cases, network, trimap=trimap).mean
        # A level of an alpha may differ where convolutions add in another order.
        assert {name: logged[name + ending] for name in mean} == pytest.approx(mean, rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_a_resumed_run_can_be_validated_from_then_on(photographs, tmp_path, real):
    options = {"save_every": 2, "keep": 9}
    whole = checkpoint.load(run(photographs, tmp_path / "whole", steps=4, **options, **real))
    (tmp_path / "again/checkpoints").mkdir(parents=True)
    for name in ("config.toml", "log.jsonl", "checkpoints/step-000000002.pt"):
        (tmp_path / "again" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    (tmp_path / "again/log.jsonl").write_text("")
    run(photographs, tmp_path / "again", steps=4, resume="auto", **options, **real)
    assert list(validations(tmp_path / "again")) == [4]  # that of step 2 was done
    (tmp_path / "again/checkpoints/step-000000004.pt").unlink()
    without = {**real, "val_trimap": "all-unknown"}
    again = checkpoint.load(run(photographs, tmp_path / "again", steps=4, resume="auto", **options, **without))
    assert list(validations(tmp_path / "again")) == [2, 4]  # by other images or trimaps it comes first
    assert set(validations(tmp_path / "again")[4]) == {"sad", "mse", "grad", "conn", "mad"}
    assert all(same_state(whole[part], again[part]) for part in ("model", "optimizer"))


@pytest.mark.slow
def test_a_network_that_sees_the_image_alone_has_one_number(photographs, tmp_path, real):
    run(photographs, tmp_path / "run", steps=1, trimap=False, **real)
    assert all(
        set(scores) == {"sad", "mse", "grad", "conn", "mad"} for scores in validations(tmp_path / "run").values()
    )


def test_a_damaged_image_to_validate_by_is_named_before_the_first_step(photographs, tmp_path, real, said):
    (tmp_path / "val/trimap/disc.png").write_bytes(b"<html>")
    run(photographs, tmp_path / "run", steps=1, **real)
    messages = said().splitlines()
    named = next(at for at, message in enumerate(messages) if message.startswith("left out: disc: "))
    assert named < next(at for at, message in enumerate(messages) if message.startswith("step 1/1"))
    assert sum("left out: disc" in message for message in messages) == 1
    # without its trimap, too, the mean is of the other image: a pixel's SAD is 0.001 at most
    assert all(scores["sad_without_trimap"] <= 1e-3 for scores in validations(tmp_path / "run").values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_trimap": None}, "--val-image, --val-trimap and --val-alpha belong together; give all three, or none"),
        ({"val_trimap": "{tmp}/gone"}, "--val-trimap {tmp}/gone does not exist"),
        ({"val_alpha": "{tmp}/val/others"}, "--val-alpha {tmp}/val/others has no partner of disc, dot of --val-image"),
        ({"val_trimap": "{tmp}/val/alpha"}, "none of the validation images can be scored; the messages above say why"),
    ],
)
def test_what_cannot_validate_is_refused_in_a_line(photographs, tmp_path, real, dptmat, changed, message):
    (tmp_path / "val/others").mkdir()
    cv2.imwrite(str(tmp_path / "val/others/x.png"), soft_disc(90, 100))
    if changed.get("val_trimap") == "{tmp}/val/alpha":  # nothing is unknown in an alpha of 0 and 255
        for name in ("disc.png", "dot.png"):
            cv2.imwrite(str(tmp_path / "val/alpha" / name), cv2.imread(str(tmp_path / "val/alpha" / name)) // 255 * 255)
    given = {**real, **{name: value and value.format(tmp=tmp_path) for name, value in changed.items()}}
    status, _, error = dptmat(*command(photographs, tmp_path / "run", steps=1, **given))
    assert status == 2
    assert error.strip().splitlines()[-1].startswith(f"dptmat: {message.format(tmp=tmp_path)}")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_preview_reads_no_image_to_validate_by(photographs, tmp_path):
    gone = dict.fromkeys(("val_image", "val_trimap", "val_alpha"), "gone")
    assert preview(PretrainConfig(data=str(photographs), out="unused", **SMALL, **gone)).any()
