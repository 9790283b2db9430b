"""Files of tensors from anywhere: read without running code from them, and not believed before they are looked at.

What stands beside the weights in the files of other projects, such as settings, paths, NumPy's numbers and whole
optimizers and schedulers, is replaced by objects without content, since nothing of it is used.
"""

import contextlib
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from dptmat.errors import UserError, few, first_line
from dptmat.file_kinds import name_kind_of
from dptmat.weights.hub import is_address
from dptmat.weights.network_folder import find_files, is_folder

_ROOM = 64 << 20  # bytes that any file may ask for
_FACTOR = 10  # more than that, and as many times its own size, is a file that fills the memory: weights hardly compress
_LONGEST = 300  # letters of a tensor's name
_PICKLES = 5  # at the head of a file in the format before PyTorch 1.6
_BUILDERS = {"bytearray": "a bytearray", "_rebuild_nested_tensor": "a nested tensor"}


class _Nothing:
    """Stands for an object that is not used: takes whatever it is made from and filled with, and keeps nothing."""

    def __new__(cls, *_: object) -> "_Nothing":
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        pass


def _dictionary(*_: object) -> OrderedDict:
    return OrderedDict()


_NUMPY = ("core", "_core")  # before NumPy 2 and since
_PATHS = "Posix", "PurePosix", "Windows", "PureWindows"
# A schedule of warm-up keeps the one that follows it, and with it the optimizer, in what it calls its state dict.
_OPTIM = [kind for place in (torch.optim, torch.optim.lr_scheduler) for kind in vars(place).values()]
_HARMLESS: list[Any] = [
    (OrderedDict, "yacs.config.CfgNode"),
    (_dictionary, "collections.defaultdict"),
    *((_Nothing, f"builtins.{kind}") for kind in ("dict", "list", "tuple", "int", "float", "str", "bool")),
    *((_Nothing, f"numpy.{core}.multiarray.{name}") for core in _NUMPY for name in ("scalar", "_reconstruct")),
    *((_Nothing, f"numpy.{name}") for name in ("dtype", "ndarray")),
    *((_Nothing, f"{pathlib}.{kind}Path") for pathlib in ("pathlib", "pathlib._local") for kind in _PATHS),
    *((_Nothing, f"datetime.{kind}") for kind in ("datetime", "date", "timedelta")),
    *((_Nothing, f"{kind.__module__}.{kind.__qualname__}") for kind in _OPTIM if isinstance(kind, type)),
    (_Nothing, "argparse.Namespace"),
]


def read(path: str | Path, *, whole: bool = False) -> dict[Any, Any]:
    """Read a file of tensors to the CPU.

    Args:
        path: What ``torch.save`` wrote, or safetensors; or a network's folder or address on the Hub, as for
            `dptmat.weights.network_folder.find_files`.
        whole: Whether it is refused unless ``torch.save`` has written checksums, and they are right.

    Returns:
        Its dictionary: of tensors, or with the tensors deeper inside. All of them are dense, and take no more memory
        than the file's size lets expect.

    Raises:
        UserError: The file is missing, damaged or of another kind, needs code of its own to be read, asks for too much
            memory, or holds no dictionary; the message begins with the path.
    """
    if str(path).startswith(("http:/", "https:/")):
        raise UserError(f"{path} cannot be read: it is on the web; give hf://user/name, or download the file")
    if whole or not (is_address(path) or is_folder(path)):
        return _read_file(path, whole=whole)
    weights, config = find_files(path)
    try:
        content = _read_file(weights, whole=False)
    except UserError as error:
        raise UserError(f"{path}{str(error).removeprefix(str(weights))}") from error
    return content if config is None else {"model": content, "config": config}


def _read_file(path: str | Path, *, whole: bool) -> dict[Any, Any]:
    if Path(path).exists() and not Path(path).is_file():
        kind = "a folder" if Path(path).is_dir() else "a pipe, a device or a socket"
        raise UserError(f"{path} cannot be read: it is {kind}; give a file")
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        if head[8:] == b"{" and head[:2] != b"PK":
            return _read_safetensors(path)
        _look_at_parts(path, head, whole)
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on old formats
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch.load raises many types for a damaged or foreign file
        raise UserError(f"{path} cannot be read: {_reason(path, error)}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected a dictionary of weights")
    _look_at_tensors(path, content)
    return content


def _read_safetensors(path: str | Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    content = load_file(path)
    _look_at_tensors(path, content)
    return content


def _look_at_parts(path: str | Path, head: bytes, whole: bool) -> None:
    """Refuse what would fill the memory while it is unpacked, or is damaged.

    Raises:
        UserError, ValueError: It is so.
    """
    if not head.startswith(b"PK"):
        if whole:
            raise ValueError(f"it is {name_kind_of(path) or 'not in the format of PyTorch 1.6 and later'}")
        if head.startswith(pickle.PROTO):
            with open(path, "rb") as file:
                for _ in range(_PICKLES):
                    _refuse_builders(file)
        return
    with zipfile.ZipFile(path) as parts:
        _require_room(path, sum(part.file_size for part in parts.infolist()))
        names = parts.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if not pickles:
            raise ValueError(f"it is a ZIP archive of {few(names) or 'nothing'}, which torch.save does not write")
        for name in pickles:
            with parts.open(name) as file:
                _refuse_builders(file)
        if whole and (broken := parts.testzip()):  # torch does not look at the checksums
            raise ValueError(f"{broken} is damaged")


def _refuse_builders(file: IO[bytes]) -> None:
    """Refuse a pickle that makes what may ask for any memory before it can be looked at, though torch would make it."""
    names: set[str] = set()
    with contextlib.suppress(ValueError):  # where it is damaged, torch says so
        names = {str(given).split(" ")[-1] for code, given, _ in pickletools.genops(file) if code.name == "GLOBAL"}
    for name in names & _BUILDERS.keys():
        raise ValueError(_foreign(_BUILDERS[name]))


def _foreign(kind: str) -> str:
    return f"it holds {kind}, not only tensors and plain values; save its state dict alone"


def _reason(path: str | Path, error: Exception) -> str:
    """Say in a line why a file cannot be read; torch's own words on foreign content advise to run its code."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    foreign = re.search(r"GLOBAL (\S{1,100})", str(error))
    if foreign:
        return _foreign(f"an object of {foreign[1]}")
    if "TorchScript" in str(error):
        return "it is a program of TorchScript; save its state dict alone"
    if isinstance(error, zipfile.BadZipFile):
        return "it is cut short or damaged"
    kind = name_kind_of(path)
    if kind and kind != "a ZIP archive":
        return f"it is {kind}"
    if "weights_only" in str(error) or not str(error):
        return "it is damaged, or nothing that torch.save wrote of tensors and plain values"
    return first_line(error)


def _look_at_tensors(path: str | Path, content: Any) -> None:
    """Refuse tensors that are not what they seem, or ask for more memory than the file can mean.

    Raises:
        UserError: There is such a tensor.
    """
    asked = 0
    for name, value in _walk(content):
        kind = _odd_kind(value)
        if kind:
            raise UserError(f"{path} holds {kind}, {name[:_LONGEST]!r}; save plain, dense tensors")
        if len(name) > _LONGEST:
            raise UserError(f"{path} holds a tensor with a name of {len(name)} letters; at most {_LONGEST} are read")
        asked += value.numel() * value.element_size()
    _require_room(path, asked)


def _odd_kind(value: Tensor) -> str:
    if value.layout != torch.strided:
        return "a sparse tensor"
    if value.is_quantized:
        return "a quantized tensor"
    return "a tensor without values" if value.is_meta else ""


def _walk(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in dictionaries and lists, each once, with the key of each."""
    seen: set[int] = set()
    waiting: list[tuple[Any, Any]] = [("", content)]
    while waiting:  # however deep
        key, value = waiting.pop()
        if isinstance(value, Tensor):
            yield key if isinstance(key, str) else "", value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.items() if isinstance(value, dict) else enumerate(value)


def _require_room(path: str | Path, asked: int) -> None:
    size = Path(path).stat().st_size
    if asked > max(_ROOM, _FACTOR * size):
        raise UserError(
            f"{path} has {size / 1e6:.3g} MB and asks for {asked / 1e6:.3g} MB of memory, more than {_FACTOR} times as "
            "much; save its weights alone, uncompressed and without expanded tensors"
        )
