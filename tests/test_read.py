"""Weights from anywhere: found wherever they lie, never executed, never believed; other files are named."""

import argparse
import collections
import io
import os
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from dptmat.errors import UserError
from dptmat.models import create_model
from dptmat.weights.initialize import initialize
from dptmat.weights.load import load_network
from dptmat.weights.names import averaged_over_plain, tensors_of
from dptmat.weights.read import read

WEIGHTS = {"conv.weight": torch.arange(4.0), "conv.bias": torch.ones(2)}
NETWORK = "unet_resnet10t"


def picture(form):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, form)
    return file.getvalue()


def archive(**parts):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, text in parts.items():
            made.writestr(f"{name}.txt", text)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "it is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is a Git LFS pointer"),
        (b"Not Found", "it is text"),
        (b"", "it is empty"),
        (bytes(5000), "it is nothing but zero bytes"),
        (picture("png"), "it is a PNG file"),
        (picture("jpeg"), "it is a JPEG file"),
        (archive(a="1", b="2"), "it is a ZIP archive of a.txt, b.txt, which torch.save does not write"),
        (archive(a="1" * 100)[:60], "it is cut short or damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(range(256)), "it is an HDF5 file"),
        (b"\x1f\x8b\x08" + bytes(range(256)), "it is a gzip archive"),
        (pickle.dumps({"a": 1}, 4), "cannot be read: "),
        (os.urandom(300), "cannot be read: "),
        (b"\x10\0\0\0\0\0\0\0{ no header }", "cannot be read: "),
    ],
)
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_what_is_no_file_of_weights_is_named(tmp_path, content, message, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        read(tmp_path / name)
    assert str(refused.value).startswith(f"{tmp_path}/{name} cannot be read: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)


def test_what_is_no_file_at_all_is_refused_without_a_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    for path, message in [(tmp_path / "pipe.pt", "a pipe"), (tmp_path, "a folder"), (tmp_path / "no", "No such file")]:
        with pytest.raises(UserError, match=message):
            read(path)


@pytest.mark.parametrize("old", [False, True])
def test_weights_are_found_by_any_format_and_name(tmp_path, old):
    torch.save(WEIGHTS, tmp_path / "a.bin", _use_new_zipfile_serialization=not old)
    save_file(WEIGHTS, tmp_path / "b.pt")
    for name in ("a.bin", "b.pt"):
        content = read(tmp_path / name)
        assert all(torch.equal(content[key], value) for key, value in WEIGHTS.items())


@pytest.mark.parametrize(
    "wrap",
    [
        *(lambda state, key=key: {key: state, "epoch": 3} for key in (
            "params", "params_ema", "state_dict", "state_dict_ema", "model", "model_ema", "net", "generator", "ema",
            "network", "model_state_dict", "module", "the_only_one",
        )),
        lambda state: {"state_dict": {"model": {"net": state}}},
        lambda state: {"model": {"a": 1}, "params": {"lr": 0.1}, **state},
        lambda state: {"optimizer": {"state": {0: {"step": torch.ones(())}}}, "generator": state},
        lambda state: {"state_dict_ema": {}, "state_dict": state},
        lambda state: {"n_averaged": torch.tensor(3), **{f"module.{key}": value for key, value in state.items()}},
        lambda state: {key.replace("conv.", "conv._orig_mod."): value for key, value in state.items()},
        lambda state: {f"model.module._orig_mod.{key}": value for key, value in state.items()},
        collections.OrderedDict,
    ],
)  # fmt: skip
def test_weights_are_found_wherever_they_lie(wrap):
    assert tensors_of(wrap(WEIGHTS)) == WEIGHTS


def test_names_are_those_that_pytorch_gives_when_it_wraps_a_network():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    expected = network.state_dict().keys()
    for wrapped in (
        nn.DataParallel(network),
        torch.optim.swa_utils.AveragedModel(network),
        torch.compile(network),
        nn.DataParallel(torch.compile(network)),
        nn.Sequential(torch.compile(network)),
    ):
        names = tensors_of(wrapped.state_dict()).keys()
        assert {name.removeprefix("0.") if isinstance(wrapped, nn.Sequential) else name for name in names} == expected


def test_of_averaged_and_plain_weights_it_is_said_which_are_taken(tmp_path, said):
    network = create_model(NETWORK)
    state = network.state_dict()
    plain = {key: value + 1 for key, value in state.items()}
    content = {"model": plain, "model_ema": state, "config": {"model": NETWORK}}
    assert averaged_over_plain(content) == ("model_ema", "model")
    torch.save(content, tmp_path / "w.pt")
    loaded, _ = load_network(tmp_path / "w.pt")
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    assert said() == f"{tmp_path}/w.pt: the averaged weights, model_ema, are taken, and model are left\n"
    assert averaged_over_plain({"params_ema": WEIGHTS}) is None


def test_harmless_objects_beside_the_weights_are_read_over(tmp_path):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1)
    beside = {
        "optimizer": optimizer, "schedule": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2]),
        "best": np.float64(0.5), "epoch": np.int64(3), "history": np.arange(3), "args": argparse.Namespace(lr=0.1),
        "path": pathlib.Path("/a"), "counts": collections.Counter("aab"), "by": collections.defaultdict(list, a=[1]),
        "more": collections.defaultdict(dict), "pure": pathlib.PureWindowsPath("c:/a"), "device": torch.device("cpu"),
    }  # fmt: skip
    for old in (False, True):
        torch.save(
            {"model": collections.defaultdict(float, WEIGHTS), **beside},
            tmp_path / "w.pt",
            _use_new_zipfile_serialization=not old,
        )
        assert tensors_of(read(tmp_path / "w.pt")).keys() == WEIGHTS.keys()


class Command:
    """Makes a file when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


class Rebuilt:
    """Is unpickled by a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def claim(elements):
    """A tensor of four numbers that claims to have more."""
    four = torch.zeros(4).untyped_storage()
    storage = torch.storage.TypedStorage(wrap_storage=four, dtype=torch.float32, _internal=True)
    return Rebuilt(torch._utils._rebuild_tensor_v2, storage, 0, (elements,), (1,), False, collections.OrderedDict())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: Command(), "holds an object of (posix|nt).mkdir, not only tensors"),
        (lambda: Rebuilt(bytearray, 1 << 33), "holds a bytearray, not only tensors"),
        (lambda: torch.eye(3).to_sparse(), "holds a sparse tensor, 'x'"),
        (lambda: torch.eye(3).to_sparse_csr(), "holds a sparse tensor, 'x'"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "holds a quantized tensor, 'x'"),
        (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "holds a nested tensor, not only"),
        (lambda: torch.empty(3, device="meta"), "holds a tensor without values, 'x'"),
        (lambda: torch.zeros(1).expand(1 << 30), "asks for 4.29e[+]03 MB of memory, more than 10 times as much"),
        (lambda: torch.zeros(1).expand(1 << 20, 1 << 20), "asks for 4.4e[+]06 MB of memory"),
        (lambda: claim(1 << 30), "cannot be read: |asks for"),
        (lambda: claim(1 << 50), "cannot be read: |asks for"),
    ],
)
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:The PyTorch API of nested", "ignore:torch.quantize")
def test_what_cannot_be_weights_is_refused_in_one_line(tmp_path, monkeypatch, value, message, old):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {**WEIGHTS, "x": value()}}, "w.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match=message) as refused:
        read("w.pt")
    assert "\n" not in str(refused.value)
    assert os.listdir() == ["w.pt"]


@pytest.mark.parametrize("value", [torch.ones(2, dtype=torch.complex64), torch.ones(2, dtype=torch.float64) * 1e300])
def test_weights_are_finite_real_numbers_of_the_networks_type(tmp_path, value):
    state = create_model(NETWORK).state_dict()
    key, old = next((key, old) for key, old in state.items() if old.ndim == 1)
    state[key] = value[:1].expand(len(old)).clone()
    torch.save({"model": state, "config": {"model": NETWORK}}, tmp_path / "w.pt")
    for load in (load_network, lambda path: initialize(create_model(NETWORK), NETWORK, str(path))):
        with pytest.raises(UserError, match=f"w.pt .*{key}|numbers that are not finite"):
            load(tmp_path / "w.pt")


def test_weights_of_eight_bits_are_taken(tmp_path):
    network = create_model(NETWORK)
    state = {
        key: value.to(torch.float8_e4m3fn) if value.ndim == 4 else value for key, value in network.state_dict().items()
    }
    torch.save({"model": state, "config": {"model": NETWORK}}, tmp_path / "w.pt")
    loaded, _ = load_network(tmp_path / "w.pt")
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize("kind", [
    "giant", *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in ("bomb", "expanded")),
])  # fmt: skip
def test_a_small_file_takes_little_memory(tmp_path, kind):
    """In a process of its own, whose largest memory is compared with what importing takes."""
    path = tmp_path / "w.pt"
    if kind == "bomb":  # zeros that are packed a thousand times smaller
        torch.save({"a": torch.zeros(1 << 28)}, tmp_path / "large.pt")
        with zipfile.ZipFile(tmp_path / "large.pt") as large, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
            for part in large.namelist():
                small.writestr(part, large.read(part))
        (tmp_path / "large.pt").unlink()
    elif kind == "giant":  # a network of 10 GB by its name
        torch.save({"model": dict(WEIGHTS), "config": {"model": "unet_swinv2_cr_giant_224"}}, path)
    else:
        torch.save({"model": {"a": torch.zeros(1).expand(1 << 30)}, "config": {"model": NETWORK}}, path)
    program = (
        "import resource, sys, timm, torch\n"
        "from dptmat.errors import UserError\n"
        "from dptmat.weights.load import load_network\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "before = used()\n"
        "try:\n    load_network('w.pt')\n"
        "except UserError as error:\n    print(used() - before, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    megabytes, message = done.stdout.split(" ", 1)
    assert int(megabytes) < 200
    assert ("names unet_swinv2_cr_giant_224, of more than" if kind == "giant" else "of memory, more than") in message
    assert message.count("\n") == 1


def test_where_nothing_fits_it_is_said_what_the_file_holds(tmp_path):
    for content, message in [
        ({"state_dict": WEIGHTS}, "2 tensors: conv.weight, conv.bias"),
        ({"epoch": 3, "optimizer": {}, 5: 1}, "no tensors, but epoch, optimizer, int"),
        ({}, "nothing"),
        ({"a\nb": torch.ones(1), "\x1b[2J": torch.ones(1)}, r"2 tensors: 'a\\nb', '\\x1b\[2J'"),
        ({"model": WEIGHTS, "config": {"model": "x" * 10_000}}, "2 tensors: conv.weight, conv.bias"),
    ]:
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(UserError, match=f"w.pt holds no matting network, but {message}; expected"):
            load_network(tmp_path / "w.pt")


def test_names_without_end_and_depth_without_end_are_no_trouble(tmp_path):
    torch.save({"a" * 10**6: torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds a tensor with a name of 1000000 letters") as refused:
        read(tmp_path / "w.pt")
    assert len(str(refused.value)) < 500
    deep = shared = []
    for _ in range(400):
        deep = [deep, deep]  # 2**400 paths
    torch.save({"a": torch.ones(1), "deep": deep, "shared": shared}, tmp_path / "w.pt")
    assert "a" in read(tmp_path / "w.pt")
