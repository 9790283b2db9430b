"""Sharing a network: a folder with its weights, what it is, and a card made from its run; on the Hub or on a disk."""

import dataclasses
import logging
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.config.settings import is_path
from dptmat.errors import UserError
from dptmat.models.layers import MattingNetwork
from dptmat.report.card import Facts, write_card
from dptmat.report.log import Log, read_log
from dptmat.report.scores import read_means
from dptmat.training import checkpoint
from dptmat.weights.hub import is_address, is_name, require_login, upload
from dptmat.weights.load import is_ours, load_network
from dptmat.weights.network_folder import CONFIG, write_network
from dptmat.weights.read import read

_logger = logging.getLogger(__name__)

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_LONGEST = 200  # letters of a setting
_MOST = 1e38  # that a setting can be


def push_to_hub(
    path: str | Path, name: str, *, license: str, private: bool = False, out: str | Path | None = None
) -> str:
    """Share a network on the Hub, as safetensors with a card that tells how it was made; or write the folder alone.

    Nothing of this machine is shared: no paths, no names of files, no addresses of data.

    Args:
        path: Folder of a run, of which the best network is taken, or else the newest; or a file, as for
            `dptmat.load_network`. A file that lies in a run's ``checkpoints`` has its log and scores, too.
        name: ``user/name`` of the repository. It is made if there is none; else its files of these names are replaced,
            and it stays public or private.
        license: The licence of the weights, as the Hub calls it: apache-2.0, mit, cc-by-nc-4.0, ...
        private: Whether a new repository is private.
        out: A folder to write instead, for a look before; new or empty. Nothing is sent.

    Returns:
        The address of the repository's page, or ``out``.

    Raises:
        UserError: There is no network, the name or the licence is none, ``out`` holds something, or the Hub does not
            take it.
        OSError: The folder cannot be written.
    """
    if not is_name(name):
        raise UserError(f"`name` {name} is no name on the Hub; expected user/name, of letters, digits, - _ and .")
    if not _LICENSE.fullmatch(license.lower()):
        raise UserError(f"`license` {license!r} is none; expected the Hub's name of one, such as apache-2.0 or mit")
    if out is not None and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise UserError(f"`out` {out} is there already and is no empty folder; give another name")
    if out is None:
        require_login(name)
    file = _find_checkpoint(Path(path)) if not is_address(path) else path
    network, config = load_network(file)
    facts = _facts(file, network, config)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        _write(Path(out), name, license.lower(), network, facts)
        return str(out)
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), name, license.lower(), network, facts)
        return upload(folder, name, private=private)


def _find_checkpoint(path: Path) -> Path:
    """Find the network of a run.

    Raises:
        UserError: There is none.
    """
    if not path.is_dir():
        return path
    best = path / "checkpoints" / "best.pt"
    file = best if best.exists() else checkpoint.latest(path / "checkpoints")
    if file is None:
        hint = ", but a network's files; send them by: hf upload" if (path / CONFIG).is_file() else ""
        raise UserError(f"{path} holds no checkpoint of a run{hint}; give the folder that a training wrote, or a file")
    _logger.info("%s: %s is taken", path, file.name)
    return file


def _facts(file: str | Path, network: MattingNetwork, config: dict[str, Any]) -> Facts:
    content = read(file)
    saved = content["config"] if is_ours(content) else {}
    task = "" if "losses" not in saved else "finetune" if "fg" in saved else "pretrain"
    step = content.get("step") if task else None
    folder = Path(file).absolute().parent
    run = folder.parent
    of_run = not is_address(file) and folder.name == "checkpoints" and (run / "log.jsonl").is_file()
    return Facts(
        model=config["model"],
        trimap=network.in_channels != 3,
        task=task,
        settings=_settings_to_share(saved, task) if task else {},
        step=step if type(step) is int else None,
        data=_data(content, folder) if task else {},
        version=version("dptmat"),
        log=_log_until(run, step) if of_run else Log(),
        scores=_scores(run, Path(file)) if of_run else None,
    )


def _settings_to_share(saved: dict[str, Any], task: str) -> dict[str, Any]:
    """Take the settings that decide what was computed; of paths nothing but that there was one."""
    settings: dict[str, Any] = {}
    for field in dataclasses.fields(FinetuneConfig if task == "finetune" else PretrainConfig):
        value = saved.get(field.name, saved.get(field.metadata["formerly"]))
        if field.metadata["changeable_on_resume"] and field.name != "micro_batch":
            continue
        if is_path(field):
            words = field.metadata["unit"].split("|")
            if field.name == "init" and value not in words and not is_address(str(value)):
                value = "a file"
            elif field.name != "init" and value not in words:
                continue
        if isinstance(value, str) and value.isprintable():
            settings[field.name] = value[:_LONGEST]
        elif isinstance(value, int | float) and abs(value) < _MOST:
            settings[field.name] = value
    return settings


def _data(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Take count and digest of the data; the best network of a run has none, but its checkpoints have."""
    if "scores" in content and (newest := checkpoint.latest(folder)):
        content = read(newest)
    found = content.get("data_fingerprint", content.get("photographs"))  # its former name
    if not isinstance(found, dict) or type(found.get("count")) is not int:
        return {}
    digest = found.get("digest")
    return {"count": found["count"], "digest": digest if re.fullmatch(r"[0-9a-f]{1,200}", str(digest)) else "unknown"}


def _log_until(run: Path, step: object) -> Log:
    """Read the log up to the step of the network."""
    log = read_log(run)
    if type(step) is not int:
        return log
    return Log([row for row in log.rows if row["step"] <= step])


def _scores(run: Path, file: Path) -> dict[str, Any] | None:
    """Read the scores of the run's evaluation, if it is of this file."""
    scores = read_means(run)
    if scores and scores["checkpoint"] != file.name:
        _logger.warning(
            "the scores in %s are of %s, not of %s, and are left out; evaluate that, or push the other",
            run / "evaluation", scores["checkpoint"] or "files", file.name,
        )  # fmt: skip
        return None
    return scores


def _write(folder: Path, name: str, license: str, network: MattingNetwork, facts: Facts) -> None:
    config = {
        "library_name": "dptmat",
        "dptmat_version": facts.version,
        "model": facts.model,
        "trimap": facts.trimap,
        "in_channels": network.in_channels,
        "size": facts.settings.get("size"),
        "task": facts.task,
        "step": facts.step,
        "training": facts.settings,
        "data_fingerprint": facts.data,
    }
    write_network(folder, network, config)
    write_card(folder, name, license, facts)
