"""Going on with a run of the version before: its checkpoint and settings under their former names."""

import dataclasses

import pytest
import torch
from networks import make_normalized, state_of

from dptmat.config.pretrain import PretrainConfig
from dptmat.errors import UserError
from dptmat.tasks.pretrain import pretrain
from dptmat.training import checkpoint
from dptmat.training.resume import refuse_another_run, resume

pytestmark = pytest.mark.usefixtures("freed")


class Task:
    micro_batch, summary = 4, "9 photographs"
    data_fingerprint = {"count": 9, "digest": "0"}


def former_checkpoint(tmp_path, **changed):
    """Write a checkpoint as version 0.1.0 before the renaming did."""
    trainer = make_normalized()
    config = dataclasses.asdict(PretrainConfig(data="d", out="o"))
    config["recompute"] = not config.pop("grad_checkpointing")
    del config["layer_decay"], config["milestones"]
    state = {**trainer.state_dict(), "step": 3, "config": config, "micro_batch": 4}
    state["photographs"] = {"count": 9, "digest": "0"}
    torch.save({**state, **changed}, tmp_path / "step-000000003.pt")
    return trainer, tmp_path / "step-000000003.pt"


def test_a_checkpoint_with_former_names_is_gone_on_from(tmp_path):
    then, path = former_checkpoint(tmp_path)
    now = make_normalized()
    torch.nn.init.ones_(now.model.conv.weight)
    assert resume(Task(), now, PretrainConfig(data="d", out="o", resume=str(path)), speaks=True) == (3, False)
    assert all(map(torch.equal, state_of(now), state_of(then)))
    assert checkpoint.load(path)["data_fingerprint"] == {"count": 9, "digest": "0"}


@pytest.mark.parametrize(
    ("settings", "changed", "message"),
    [
        ({"seed": 7}, {}, "`seed` is 7, but the run of .* was begun with 0"),
        ({"layer_decay": 0.65}, {}, "`layer_decay` is 0.65, but the run of .* was begun with 1.0"),
        ({"schedule": "milestones", "milestones": "0.3:0.1"}, {}, "`schedule` is milestones, but .* begun with step"),
        ({}, {"micro_batch": 2}, "`micro_batch` is 4, but the run of .* was begun with 2"),
        ({}, {"photographs": {"count": 8, "digest": "0"}}, "9 photographs are not what the run of .* was begun with"),
    ],
)
def test_another_run_is_refused(tmp_path, settings, changed, message):
    _, path = former_checkpoint(tmp_path, **changed)
    with pytest.raises(UserError, match=message):
        resume(Task(), make_normalized(), PretrainConfig(data="d", out="o", resume=str(path), **settings), speaks=True)


def test_a_folder_with_another_run_is_refused(tmp_path):
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(UserError, match="holds another run; go on with it by `resume` auto"):
        refuse_another_run(PretrainConfig(data="d", out=str(tmp_path)))
    refuse_another_run(PretrainConfig(data="d", out=str(tmp_path), resume="auto"))
    refuse_another_run(PretrainConfig(data="d", out=str(tmp_path / "new")))


def test_without_a_checkpoint_what_an_earlier_try_listed_does_not_count(photographs, tmp_path):
    """Its list of photographs and its quarantine, while files have come and gone."""
    out = tmp_path / "run"
    (out / "checkpoints").mkdir(parents=True)
    (out / "config.toml").write_text("")
    (out / "files.txt").write_text("gone_1.jpg\ngone_2.jpg\n")
    names = sorted(photographs.iterdir())
    (out / "quarantine.txt").write_text("".join(f"{name}\tnot mounted\n" for name in names))
    options = {"model": "unet_resnet10t", "size": 64, "batch_size": 4, "steps": 1, "device": "cpu"}
    assert pretrain(data=photographs, out=out, resume="auto", **options).exists()
    assert len((out / "files.txt").read_text().splitlines()) == 72
    assert not (out / "quarantine.txt").read_text()
