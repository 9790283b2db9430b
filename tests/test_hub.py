"""Networks on the Hub and in folders: what is shared, what comes back, and what a user is told when it does not."""

import ast
import dataclasses
import getpass
import json
import os
import shutil
import socket
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from hub import TOKEN, Hub
from huggingface_hub.utils import disable_progress_bars
from PIL import Image
from safetensors.torch import load_file, save_file

import dptmat as library
from dptmat.config.finetune import FinetuneConfig
from dptmat.config.pretrain import PretrainConfig
from dptmat.errors import UserError
from dptmat.models import create_model
from dptmat.weights.hub import Repository, upload
from dptmat.weights.initialize import initialize
from dptmat.weights.read import read

MODEL = "unet_lcnet_035"  # a small one
SECRETS = "/home/ada", "ada_photos", "s3://ada-bucket", "IMG_2041.jpg", "girl.png", TOKEN
SCORES = {"sad": 12.25, "mse": 0.015, "grad": 7.5, "conn": 11.125}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_model(MODEL).eval()


def alpha_of(network):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    trimap = generator.integers(0, 3, (64, 96), dtype=np.uint8)
    return library.predict_alpha(network, image, trimap)


def write_run(folder, network, config, *, file="step-000000020.pt", judged=None):
    """A run's folder as a training leaves it, with places and names that are nobody else's business."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    state = {"model": network.state_dict(), "config": dataclasses.asdict(config), "step": 20}
    fingerprint = {"count": 1234567, "digest": "0a1b2c3d4e5f"}
    if file == "best.pt":
        torch.save(
            {"model": {}, "config": {}, "step": 40, "data_fingerprint": fingerprint}, checkpoints / "step-000000040.pt"
        )
        torch.save({**state, "scores": SCORES}, checkpoints / file)
    else:
        torch.save({**state, "data_fingerprint": fingerprint}, checkpoints / file)
    lines = [{"step": step, "loss": 1 / step, "l1": 0.5 / step} for step in (10, 20, 30, 40)]
    lines.append({"left_out": "/home/ada/ada_photos/IMG_2041.jpg", "reason": "it is text"})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.toml").write_text('data = "/home/ada/ada_photos"\n')
    if judged:
        paths = dict.fromkeys(("image", "trimap", "alpha", "prediction"), "/home/ada/test/girl.png")
        row = {"name": "girl.png", **paths, "unknown_pixels": 17, **SCORES}
        scores = {
            "images": [row], "mean": SCORES, "left_out": [], "checkpoint": f"/home/ada/run/checkpoints/{judged}",
            "trimap": "from-alpha", "seed": 3, "known_regions": "from trimap",
        }  # fmt: skip
        (folder / "evaluation").mkdir()
        (folder / "evaluation" / "scores.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory, network):
    config = PretrainConfig(
        data="/home/ada/ada_photos", out="/home/ada/run", model=MODEL, size=96, lr=0.00123,
        init="/home/ada/start.pt", quarantine="/home/ada/quarantine.txt",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("runs") / "first"
    return write_run(folder, network, config, judged="step-000000020.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, run):
    """What the run's network is as a folder."""
    out = tmp_path_factory.mktemp("shared") / "tiny"
    library.push_to_hub(run, "ada/tiny", license="apache-2.0", out=out)
    return out


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with an empty cache and a user who is logged in."""
    server = Hub()
    connect_to(server.url, monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    disable_progress_bars()
    yield server
    server.shutdown()
    server.server_close()


def connect_to(url, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- round trips ---


def test_a_folder_gives_the_network_back_to_the_bit(network, folder):
    expected = alpha_of(network)
    loaded = library.from_pretrained(str(folder))
    assert not loaded.training
    assert torch.equal(alpha_of(loaded), expected)
    again, config = library.load_network(folder / "model.safetensors")
    assert torch.equal(alpha_of(again), expected)
    assert config == {"model": MODEL, "trimap": True}
    weights = load_file(folder / "model.safetensors")  # as others read them
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())


def test_a_network_without_trimap_stays_one(tmp_path):
    torch.manual_seed(1)
    network = create_model(MODEL, 3).eval()
    torch.save({"model": network.state_dict(), "config": {"model": MODEL, "trimap": False}}, tmp_path / "plain.pt")
    library.push_to_hub(tmp_path / "plain.pt", "ada/plain", license="mit", out=tmp_path / "plain")
    assert torch.equal(alpha_of(library.from_pretrained(tmp_path / "plain")), alpha_of(network))
    card = (tmp_path / "plain" / "README.md").read_text()
    assert " --trimap" not in card
    assert " --no-trimap" in card
    assert "image, None)" in card
    assert "not known" in card


def test_a_network_goes_to_the_hub_and_comes_back_also_without_a_network(
    hub, network, run, folder, dptmat, monkeypatch
):
    status, page, _ = dptmat("push", run, "ada/tiny", "--license", "apache-2.0", "--private")
    assert (status, page) == (0, f"{hub.url}/ada/tiny\n")
    assert hub.private == {"ada/tiny": True}
    assert hub.commits[hub.repos["ada/tiny"]["main"]] == files_of(folder)
    expected = alpha_of(network)
    assert torch.equal(alpha_of(library.from_pretrained("ada/tiny")), expected)

    asked = len(hub.requests)
    assert torch.equal(alpha_of(library.from_pretrained(f"hf://ada/tiny@{hub.repos['ada/tiny']['main']}")), expected)
    assert len(hub.requests) == asked  # a commit does not change

    connect_to("http://127.0.0.1:9", monkeypatch)  # where nobody answers
    assert torch.equal(alpha_of(library.from_pretrained("ada/tiny")), expected)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    attempts = []
    monkeypatch.setattr(socket.socket, "connect", lambda *words: attempts.append(words))
    for address in ("hf://ada/tiny", "hf://ada/tiny/model.safetensors", Path("hf://ada/tiny"), "hf://models/ada/tiny"):
        assert read(address)["config"] == {"model": MODEL, "trimap": True}
    assert torch.equal(alpha_of(library.from_pretrained("ada/tiny")), expected)
    assert not attempts


def test_a_repository_that_is_there_stays_as_visible_and_a_second_push_replaces(hub, run, dptmat):
    hub.put("ada/tiny", {"model.safetensors": b"old"})
    assert dptmat("push", run, "ada/tiny", "--license", "mit", "--private")[0] == 0
    assert hub.private == {}
    assert len(hub.commits[hub.repos["ada/tiny"]["main"]]["model.safetensors"]) > 1000


def test_revisions_are_told_apart(hub, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "small.safetensors")
    for revision in ("main", "v1", "feature/x", "refs/pr/2"):
        config = json.dumps({"dptmat_version": "0.1.0", "model": revision, "trimap": True}).encode()
        hub.put(
            "ada/tiny",
            {"config.json": config, "model.safetensors": (tmp_path / "small.safetensors").read_bytes()},
            revision,
        )
    for ending, revision in [("", "main"), ("@v1", "v1"), ("@feature%2Fx", "feature/x"), ("@refs/pr/2", "refs/pr/2")]:
        assert read(f"hf://ada/tiny{ending}")["config"]["model"] == revision


def test_weights_and_settings_are_of_one_commit(hub):
    hub.put("ada/tiny", {"config.json": b"{}", "model.safetensors": b"first"})
    repository = Repository("hf://ada/tiny")
    repository.find("config.json")
    hub.put("ada/tiny", {"config.json": b"{}", "model.safetensors": b"second"})
    assert repository.fetch("model.safetensors").read_bytes() == b"first"


# --- wherever a checkpoint is taken ---


def test_commands_take_an_address(hub, network, folder, dptmat, tmp_path):
    hub.put("ada/tiny", files_of(folder))
    for name in ("image", "trimap", "alpha"):
        (tmp_path / name).mkdir()
        value = np.full((64, 64, 3) if name == "image" else (64, 64), 128, np.uint8)
        Image.fromarray(value).save(tmp_path / name / "a.png")
    at = [part for name in ("image", "trimap") for part in (f"--{name}", tmp_path / name)]
    assert dptmat("predict", "--checkpoint", folder, *at, "--out", tmp_path / "local")[0] == 0
    assert dptmat("predict", "--checkpoint", "hf://ada/tiny", *at, "--out", tmp_path / "far")[0] == 0
    assert (tmp_path / "far" / "a.png").read_bytes() == (tmp_path / "local" / "a.png").read_bytes()

    words = ("--checkpoint", "hf://ada/tiny", *at, "--alpha", tmp_path / "alpha", "--out", tmp_path / "scores")
    assert dptmat("evaluate", *words)[0] == 0
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["checkpoint"] == "hf://ada/tiny"

    assert dptmat("convert", "hf://ada/tiny", tmp_path / "a.pt")[0] == 0
    assert torch.equal(alpha_of(library.load_network(tmp_path / "a.pt")[0]), alpha_of(network))
    assert dptmat("convert", "--to", "timm", folder, tmp_path / "a.safetensors")[0] == 0


def test_a_training_starts_from_an_address_a_folder_and_a_file_there(hub, network, folder, said, tmp_path):
    hub.put("ada/tiny", files_of(folder))
    torch.save({"model": network.state_dict(), "config": {"model": MODEL}}, tmp_path / "a.pt")
    hub.put("ada/files", {"weights/a.pt": (tmp_path / "a.pt").read_bytes()})
    for init in ("hf://ada/tiny", str(folder), "hf://ada/files/weights/a.pt"):
        start = create_model(MODEL)
        initialize(start, MODEL, init)
        assert torch.equal(alpha_of(start.eval()), alpha_of(network))
        assert f"init {init} (dptmat's {MODEL})" in said()


def test_an_encoder_of_timm_on_the_hub_starts_a_training(hub, tmp_path, said):
    import timm

    encoder = timm.create_model("lcnet_035")
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    config = json.dumps({"architecture": "lcnet_035", "num_classes": 1000}).encode()
    hub.put("timm/lcnet", {"config.json": config, "model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    start = create_model(MODEL)
    initialize(start, MODEL, "hf://timm/lcnet")
    depthwise = next(value for name, value in start.state_dict().items() if name.endswith("0.0.conv_dw.weight"))
    assert torch.equal(depthwise, encoder.blocks[0][0].conv_dw.weight)


# --- the card ---


def test_the_card_tells_how_the_network_was_made(folder):
    text = (folder / "README.md").read_text()
    data = huggingface_hub.ModelCard(text).data  # as the Hub reads it
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "dptmat", "image-segmentation")
    for word in ("1,234,567 photographs", "0a1b2c3d4e5f", "| lr | `0.00123` |", "| size | `96` |",
                 "| init | `a file` |", "`apache-2.0`",
                 "| steps done | `20` |", 'from_pretrained("ada/tiny")', "hf://ada/tiny", "li2024disentangled",
                 "start for fine-tuning", "| 1 | 12.25 | 15 | 7.5 | 11.12 |", "unknown region",
                 "made from the true alphas, seed 3", "0 and 1 where the trimap is known"):  # fmt: skip
        assert word in text, word
    assert "![Loss against the step](loss.png)" in text
    with Image.open(folder / "loss.png") as curve:
        assert curve.format == "PNG"
    config = json.loads((folder / "config.json").read_text())
    assert config["training"]["lr"] == 0.00123
    assert (config["in_channels"], config["size"], config["step"]) == (6, 96, 20)
    assert config["data_fingerprint"]["count"] == 1234567


def test_nothing_of_the_machine_is_shared(folder, run, tmp_path):
    secrets = [*SECRETS, str(run), str(folder), str(Path.home()), str(tmp_path.parent), socket.gethostname()]
    for name in ("README.md", "config.json", "loss.png"):
        content = (folder / name).read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, (name, secret)
        assert f"/{getpass.getuser()}/".encode() not in content
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "loss.png",
        "model.safetensors",
    ]


def test_the_card_of_a_fine_tuning_is_of_its_best_network(network, tmp_path, said):
    config = FinetuneConfig(
        fg="/home/ada/fg", alpha="/home/ada/alpha", bg="s3://ada-bucket/coco", init="hf://eve/start@v2", model=MODEL,
        out="/home/ada/fine", val_image="/home/ada/v", val_alpha="/home/ada/a", val_trimap="from-alpha",
    )  # fmt: skip
    run = write_run(tmp_path / "fine", network, config, file="best.pt", judged="best.pt")
    library.push_to_hub(run, "ada/fine", license="mit", out=tmp_path / "out")
    assert "best.pt is taken" in said()
    text = (tmp_path / "out" / "README.md").read_text()
    assert huggingface_hub.ModelCard(text).data.base_model == "eve/start"
    assert "fine-tuned by dptmat" in text
    assert "1,234,567 photographs as backgrounds" in text
    assert "| 12.25 |" in text.replace("| 1 |", "|")
    assert not any(secret in text for secret in SECRETS)


def test_scores_of_another_checkpoint_are_left_out(run, tmp_path, said):
    shutil.copytree(run, tmp_path / "run", copy_function=os.link)
    (tmp_path / "run" / "checkpoints" / "step-000000020.pt").rename(
        tmp_path / "run" / "checkpoints" / "step-000000030.pt"
    )
    library.push_to_hub(tmp_path / "run", "ada/tiny", license="mit", out=tmp_path / "out")
    assert "are of step-000000020.pt, not of step-000000030.pt, and are left out" in said()
    assert "12.25" not in (tmp_path / "out" / "README.md").read_text()


# --- what is refused: one line, exit status 2 ---


def refusal(dptmat, *words):
    begun = time.monotonic()
    status, out, err = dptmat(*words)
    assert time.monotonic() - begun < 10
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://ada/none", "there is no such repository, or it is private"),
        ("hf://ada/tiny@v9", "there is no revision v9"),
        ("hf://ada/tiny/no.pt", "the repository has no file no.pt"),
        ("hf://ada/tiny", "the repository has no file model.safetensors"),
        ("hf://ada/gated", "for those who have accepted its terms"),
        ("hf://ada/busy", "takes no more requests for now"),
        ("hf://ada/down", "the Hub answers 503"),
        ("hf://ada/token", "refuses this token"),
        ("hf://ada", "is no address of a network on the Hub"),
        ("hf://", "is no address"),
        ("hf://ada/ti ny", "is no address"),
        ("hf://ada/tiny/a.pt@v1/..", "the repository has no file"),
        ("hf://ada/../tiny", "is no address"),
        ("hf://datasets/ada/tiny", "is no address"),
        ("https://huggingface.co/ada/tiny", "give hf://user/name"),
    ],
)
def test_what_the_hub_does_not_give_is_told_in_a_line(hub, dptmat, tmp_path, address, message):
    hub.put("ada/tiny", {"README.md": b"nothing"})
    hub.faults = {
        "ada/gated": (403, "GatedRepo"), "ada/busy": (429, ""), "ada/down": (503, ""), "ada/token": (401, ""),
    }  # fmt: skip
    assert message in refusal(dptmat, "convert", address, tmp_path / "out.pt")


def test_without_a_network_or_its_copy_a_line_says_so(hub, dptmat, tmp_path, monkeypatch):
    connect_to("http://127.0.0.1:9", monkeypatch)
    assert "the Hub cannot be reached" in refusal(dptmat, "convert", "hf://ada/tiny", tmp_path / "out.pt")
    connect_to("http://nobody.invalid", monkeypatch)
    assert "the Hub cannot be reached" in refusal(dptmat, "convert", "hf://ada/tiny", tmp_path / "out.pt")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal(dptmat, "convert", "hf://ada/tiny", tmp_path / "out.pt")
    assert "HF_HUB_OFFLINE is set, and the Hub's cache has no copy" in message


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "clip"}, "is a network of transformers, 'clip', which dptmat does not know"),
        ({"architectures": ["Clip"]}, "is a network of transformers"),
        ({"dptmat_version": "0.1.0", "model": 7}, "does not tell the network"),
        ({"dptmat_version": "0.1.0", "model": MODEL, "trimap": "yes"}, "does not tell the network"),
        ([1], "no object of JSON"),
        (b"{", "its config.json cannot be read"),
        (b"[" * 100_000, "its config.json cannot be read"),
        (b"\xff\xfe", "its config.json cannot be read"),
        (b" " * (1 << 20) + b"{}", "at most 1,048,576 are read"),
    ],
)
def test_a_repository_of_another_kind_is_refused_before_its_weights_are_fetched(hub, dptmat, tmp_path, config, message):
    content = config if isinstance(config, bytes) else json.dumps(config).encode()
    hub.put("eve/other", {"config.json": content, "model.safetensors": b"0" * 100})
    assert message in refusal(dptmat, "convert", "hf://eve/other", tmp_path / "out.pt")
    assert not any("safetensors" in path for _, path, _ in hub.requests)
    (tmp_path / "model.safetensors").write_bytes(b"0" * 100)
    (tmp_path / "config.json").write_bytes(content)
    assert message.partition("at most")[0] in refusal(dptmat, "convert", tmp_path, tmp_path / "out.pt")


def test_files_of_a_stranger_run_no_code_and_fill_no_memory(hub, dptmat, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    ours = {"dptmat_version": "0.1.0", "model": MODEL, "trimap": True}
    evil = (tmp_path / "evil.pt").read_bytes()
    hub.put("eve/code", {"config.json": json.dumps(ours).encode(), "model.safetensors": evil, "a.pt": evil})
    for address in ("hf://eve/code", "hf://eve/code/a.pt"):
        message = refusal(dptmat, "convert", address, tmp_path / "out.pt")
        assert message.startswith(f"dptmat: {address} cannot be read: ")
    assert not (tmp_path / "touched").exists()
    save_file({"a": torch.zeros(1)}, tmp_path / "small.safetensors")
    giant = json.dumps({**ours, "model": "unet_swinv2_cr_giant_224"}).encode()
    hub.put("eve/giant", {"config.json": giant, "model.safetensors": (tmp_path / "small.safetensors").read_bytes()})
    assert "expected a whole checkpoint" in refusal(dptmat, "convert", "hf://eve/giant", tmp_path / "out.pt")


def test_a_folder_without_weights_is_refused(dptmat, run, tmp_path):
    assert "it is a folder without model.safetensors" in refusal(dptmat, "convert", run, tmp_path / "out.pt")


def test_what_cannot_be_pushed_is_told_in_a_line(hub, run, folder, dptmat, tmp_path, monkeypatch):
    words = ("push", run, "ada/tiny", "--license", "mit")
    hub.faults = {"ada/busy": (429, ""), "eve/hers": (403, "")}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    for wrong, message in [
        (("push", run, "ada/tiny"), "Missing option '--license'"),
        (("push", run, "tiny", "--license", "mit"), "expected user/name"),
        (("push", run, "ada/ti/ny", "--license", "mit"), "expected user/name"),
        (("push", run, "ada/tiny", "--license", "my own"), "--license 'my own' is none"),
        (("push", tmp_path / "no", "ada/tiny", "--license", "mit"), "No such file"),
        (("push", tmp_path, "ada/tiny", "--license", "mit"), "holds no checkpoint of a run"),
        (("push", folder, "ada/tiny", "--license", "mit"), "hf upload"),
        ((*words, "--out", tmp_path / "full"), "is no empty folder"),
    ]:
        assert message in refusal(dptmat, *wrong)
    for name, message in [("ada/busy", "no more requests"), ("eve/hers", "this token may not do that")]:
        with pytest.raises(UserError, match=f"{name} cannot be pushed: .*{message}"):
            upload(tmp_path, name, private=False)
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "README.md").write_text("---\nlicense: mine\n---\n")
    with pytest.raises(UserError, match=r'ada/tiny cannot be pushed: [^\n]*"license" must be one of[^\n]*\Z'):
        upload(tmp_path / "card", "ada/tiny", private=False)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(UserError, match="refuses this token"):
        upload(tmp_path, "ada/tiny", private=False)
    connect_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(UserError, match="the Hub cannot be reached"):
        upload(tmp_path, "ada/tiny", private=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        upload(tmp_path, "ada/tiny", private=False)
    monkeypatch.delenv("HF_TOKEN")
    assert "nobody is logged in" in refusal(dptmat, *words)


def test_a_name_that_is_neither_folder_nor_repository_is_refused():
    with pytest.raises(UserError, match="is no folder, and no name on the Hub"):
        library.from_pretrained("no such folder")


def test_one_file_knows_the_hub():
    files = {}
    for path in Path(library.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.partition(".")[0] == "huggingface_hub" for name in names):
                files.setdefault(path.name, []).append(node)
    assert list(files) == ["hub.py"]
    assert all(node.col_offset for node in files["hub.py"])  # in functions, when it is needed
