"""Trackers beside TensorBoard: they hold what it holds, offline too, and whatever becomes of them, training goes on."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dptmat.errors import UserError
from dptmat.training import tracking
from dptmat.training.log import RunLog
from dptmat.training.tracking import Tracker, require_installed

KINDS = ("wandb", "trackio")
SETTINGS = {"lr": 1e-3, "model": "gca", "trimap": True}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No login, no settings of whoever runs the tests, and nothing written but where a test looks."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(home)
    yield
    assert not [path for path in home.rglob("*") if path.is_file()]


def records(path):
    """The records of a .wandb file, which is a log of LevelDB: blocks of 32 KiB, records in pieces."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += -at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole = content[at + 7 : at + 7 + size] if kind in (1, 2) else whole + content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield Record.FromString(whole)


def wandb_rows(out):
    """(id of the run, its name, its settings, and of each number the steps and values) in the order of writing."""
    ids, names, settings, curves = set(), set(), {}, {}
    for path in sorted(out.glob("wandb/*run-*/*.wandb")):
        for record in records(path):
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
                names.add((record.run.project, record.run.display_name))
                settings |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.WhichOneof("record_type") == "history":
                row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                for name, value in row.items():
                    if not name.startswith("_"):
                        curves.setdefault(name, []).append((int(row["_step"]), float(json.loads(value))))
    return ids, names, settings, curves


def trackio_rows(out):
    (path,) = out.glob("trackio/*.db")
    with sqlite3.connect(path) as base:
        rows = base.execute("select run_id, run_name, step, metrics from metrics order by id").fetchall()
        (settings,) = base.execute("select config from configs").fetchone()
    curves = {}
    for _, _, step, numbers in rows:
        for name, value in json.loads(numbers).items():
            curves.setdefault(name, []).append((step, float(value)))
    return {row[0] for row in rows}, {(path.stem, row[1]) for row in rows}, json.loads(settings), curves


ROWS = {"wandb": wandb_rows, "trackio": trackio_rows}


def log_steps(out, kind, start, steps, *, settings=SETTINGS):
    """Log steps as a run does, every second one with a validation."""
    tracker = Tracker(kind, out, settings, start)
    log = RunLog(out, 99, 2, start=start, writes=True, tracker=tracker)
    for step in range(start + 1, start + steps + 1):
        log.report(step, {"loss": 1 / step, "grad_norm": float("inf") if step == 3 else 0.5}, 1e-3, 0.0, 0.0)
        if step % 2 == 0:
            log.validated(step, {"sad": 10.0 * step, "mse": 0.5, "grad": 1.0, "conn": 2.0})
    log.close()
    return tracker


def curves_of_tensorboard(out):
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_holds_what_tensorboard_holds_once_also_after_a_kill(tmp_path, kind, said):
    """Steps 1 to 5 and a kill; a run that goes on after step 3 does 4 to 8: one tracked run, each number once."""
    out = tmp_path / "first"
    out.mkdir()
    killed = log_steps(out, kind, 0, 5)
    killed._process.stdin.close()  # what the system does with a process that is killed
    killed._process.wait(30)
    log_steps(out, kind, 3, 5).close()
    ids, names, settings, curves = ROWS[kind](out)
    assert len(ids) == 1
    assert names == {("dptmat", "first")}
    assert SETTINGS.items() <= settings.items()
    drawn = curves_of_tensorboard(out)
    speed = {"images_per_second", "waited", "waited_host"}  # that differ where steps are done again
    assert curves.keys() == drawn.keys() >= {"loss", "grad_norm", "learning_rate", "validation/sad", *speed}
    for name in drawn:
        assert [step for step, _ in curves[name]] == [step for step, _ in drawn[name]], name
        if name not in speed:
            assert [value for _, value in curves[name]] == pytest.approx([value for _, value in drawn[name]])
    assert "wandb" not in said()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_of_a_step_that_others_were_sent_of_is_not_lost(tmp_path, kind):
    """As by a validation that a resumed run makes up for."""
    out = tmp_path / "first"
    out.mkdir()
    log_steps(out, kind, 0, 3).close()
    tracker = Tracker(kind, out, SETTINGS, 3)
    tracker.add({"validation/sad": 7.0}, 3)
    tracker.close()
    (_, first), (at, last) = ROWS[kind](out)[3]["validation/sad"]
    assert (first, last) == (20.0, 7.0)
    assert at == (4 if kind == "wandb" else 3)  # wandb takes no more of a step


@pytest.mark.slow
def test_a_run_that_begins_anew_is_another_tracked_run(tmp_path):
    for _ in range(2):
        log_steps(tmp_path, "trackio", 0, 1).close()
    assert len(trackio_rows(tmp_path)[0]) == 2


@pytest.mark.slow
def test_a_run_goes_on_in_its_own_where_another_has_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    folders = [tmp_path / "a/first", tmp_path / "b/first"]
    for folder, start in ((folders[0], 0), (folders[1], 0), (folders[0], 1)):
        folder.mkdir(parents=True, exist_ok=True)
        tracker = Tracker("trackio", folder, SETTINGS, start)
        tracker.add({"loss": 1.0}, start + 1)
        tracker.close()
    own = [json.loads((folder / "trackio-run.json").read_text())["id"] for folder in folders]
    with sqlite3.connect(next(tmp_path.glob("trackio/*.db"))) as base:
        rows = base.execute("select run_id, step from metrics order by id").fetchall()
    assert rows == [(own[0], 1), (own[1], 1), (own[0], 2)]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_wandb_is_told_whether_a_run_has_ended_by_itself(tmp_path, killed):
    tracker = log_steps(tmp_path, "wandb", 0, 1)
    process = tracker._process
    if killed:
        process.stdin.close()
        process.wait(30)
    tracker.close()
    (path,) = tmp_path.glob("wandb/*run-*/*.wandb")
    codes = [record.exit.exit_code for record in records(path) if record.WhichOneof("record_type") == "exit"]
    assert codes == [int(killed)]


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "short", pytest.param("a" * 40, marks=pytest.mark.exhaustive)])
def test_without_a_login_or_a_network_wandb_is_offline_and_says_so(tmp_path, monkeypatch, said, key):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    log_steps(tmp_path, "wandb", 0, 2).close()
    assert wandb_rows(tmp_path)[1] == {("mine", tmp_path.name)}
    (line,) = [line for line in said().splitlines() if line.startswith("wandb: ")]
    why = "there is no login (wandb login, or WANDB_MODE=offline)" if key is None else "the login cannot be used: "
    assert line.startswith(f"wandb: {why}")
    assert f"the run is tracked offline: wandb sync {tmp_path}/wandb/offline-run-" in line


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_is_killed_costs_a_line_and_not_the_run(tmp_path, kind, said):
    tracker = Tracker(kind, tmp_path, SETTINGS, 0)
    tracker.add({"loss": 1.0}, 1)
    os.kill(tracker._process.pid, signal.SIGKILL)
    tracker._process.wait()
    for step in range(2, 5):
        tracker.add({"loss": 1.0}, step)
    tracker.close()
    assert said() == f"{kind}: its process has ended; the run goes on without it\n"


@pytest.mark.slow
def test_a_process_that_hangs_is_not_waited_for(tmp_path, monkeypatch, said):
    monkeypatch.setattr(tracking, "_ENDS", 1.0)
    monkeypatch.setattr(tracking, "_MOST_WAITING", 1 << 18)
    tracker = Tracker("trackio", tmp_path, SETTINGS, 0)
    os.kill(tracker._process.pid, signal.SIGSTOP)
    began = time.monotonic()
    tracker.add({"loss": 1.0}, 1)
    tracker.close()
    assert said() == "trackio: it does not end within 1 s; the run goes on without it\n"
    tracker = Tracker("trackio", tmp_path, SETTINGS, 0)
    os.kill(tracker._process.pid, signal.SIGSTOP)
    for step in range(9):
        tracker.add({f"{step} {number}": 1.0 for number in range(5000)}, step)
    assert said() == "trackio: it takes no more numbers; the run goes on without it\n"
    assert time.monotonic() - began < 30
    tracker.close()


def test_a_process_that_cannot_be_started_costs_a_line(tmp_path, monkeypatch, said):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    tracker = Tracker("wandb", tmp_path, SETTINGS, 0)
    tracker.add({"loss": 1.0}, 1)
    tracker.close()
    assert said() == "wandb cannot be started: No such file or directory; the run goes on without it\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_no_text_end_nothing(tmp_path, kind, said):
    """Neither TensorBoard nor wandb writes into such a folder."""
    out = tmp_path / os.fsdecode(b"caf\xe9 \xff")
    out.mkdir()
    log_steps(out, kind, 0, 1, settings={"data": os.fsdecode(b"\xff")}).close()
    told = [line for line in said().splitlines() if line.startswith(kind)]
    if kind == "trackio":
        assert trackio_rows(out)[1] == {("dptmat", "caf? ?")}
        assert not told
    else:
        assert len(told) == 1
        assert told[0].endswith("surrogates not allowed; the run goes on without it")


@pytest.mark.slow
def test_what_a_tracker_cannot_write_is_said_once(tmp_path, monkeypatch, said):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "file" / "below"))
    log_steps(tmp_path, "trackio", 0, 3).close()
    lines = [line for line in said().splitlines() if line.startswith("trackio: ")]
    assert len(lines) >= 1
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("content", ["", "[]", '{"id": "../../x", "sent": {}}', '{"id": 3, "sent": []}', "[" * 10**5])
def test_a_damaged_note_of_the_tracked_run_begins_another(tmp_path, content):
    from dptmat.training.tracking_process import _Sent

    (tmp_path / "wandb-run.json").write_text(content)
    sent = _Sent(tmp_path / "wandb-run.json", 5)
    assert sent.ident == ""
    assert sent.news({"loss": 1.0}, 1) == {"loss": 1.0}


def test_a_tracker_that_is_not_installed_is_refused_with_what_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`track` wandb needs the package wandb; .* pip install 'dptmat\[wandb"):
        require_installed("wandb")
    require_installed("none")


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_ends_within_seconds_with_its_tracked_run(photographs, tmp_path):
    out = tmp_path / "first"
    words = ["pretrain", "--data", photographs, "--out", out, "--size", "64", "--batch-size", "4", "--steps", "500"]
    words += ["--model", "unet_resnet10t", "--log-every", "1", "--device", "cpu", "--track", "wandb"]
    process = subprocess.Popen([sys.executable, "-m", "dptmat", *map(str, words)], stdout=subprocess.DEVNULL)
    while not (out / "wandb-run.json").exists() or "loss" not in (out / "wandb-run.json").read_text():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    ids, names, settings, curves = wandb_rows(out)
    assert names == {("dptmat", "first")}
    assert settings["batch_size"] == 4
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert dict(curves["loss"]) == pytest.approx({line["step"]: line["loss"] for line in lines})
