"""A network as a folder, on a disk or on the Hub: ``model.safetensors``, its weights, and ``config.json``, what it is.

Of ``config.json`` two keys make the network: ``model``, its name for `dptmat.create_model`, and ``trimap``, False if it
takes the image alone. ``dptmat_version`` tells that this library wrote it. All others are for people.
"""

import json
from pathlib import Path
from typing import Any

from dptmat.errors import UserError, first_line
from dptmat.files import write_whole
from dptmat.models.layers import MattingNetwork
from dptmat.weights.hub import Repository, is_address

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
LARGEST_CONFIG = 1 << 20  # bytes; that of a network of transformers has thousands
_LONGEST = 100  # letters of what a message quotes
# Networks of transformers whose weights dptmat knows by their names.
_KNOWN = ("vitmatte",)


def is_folder(path: str | Path) -> bool:
    """Tell whether a path means a network's folder: the folder itself, or the weights in it."""
    path = Path(path)
    return path.is_dir() or (path.name == WEIGHTS and (path.parent / CONFIG).is_file())


def find_files(path: str | Path) -> tuple[Path, dict[str, Any] | None]:
    """Find the weights of a network, and its settings where they are not in the same file.

    Args:
        path: A folder, the weights in it, or an address on the Hub, of a repository or of a file in one.

    Returns:
        The file of weights; ``model`` and ``trimap`` of a network of this library, or None.

    Raises:
        UserError: The address is none, the Hub does not give the files, or they are not of a network.
    """
    if is_address(path):
        repository = Repository(path)
        if repository.file not in (None, WEIGHTS):
            return repository.fetch(repository.file), None
        config = repository.find(CONFIG, LARGEST_CONFIG)
        settings = _read_config(config, path) if config else None  # before the weights, which may be large
        return repository.fetch(WEIGHTS), settings
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{path} cannot be read: it is a folder without {WEIGHTS}; give a file, or a folder that dptmat push wrote"
        )
    return folder / WEIGHTS, _read_config(folder / CONFIG, path) if (folder / CONFIG).is_file() else None


def _read_config(file: Path, path: str | Path) -> dict[str, Any] | None:
    """Read what makes the network; None where another library wrote the file and its weights may yet be known.

    Raises:
        UserError: It is damaged, too large, or of a network that is none of ours; the message begins with ``path``.
    """
    try:
        with open(file, "rb") as opened:
            content = opened.read(LARGEST_CONFIG + 1)
        if len(content) > LARGEST_CONFIG:
            raise ValueError(f"it has more than {LARGEST_CONFIG:,} bytes")
        config = json.loads(content)
        if not isinstance(config, dict):
            raise ValueError("it is no object of JSON")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: its {CONFIG} cannot be read: {first_line(error)}; restore it") from error
    if "dptmat_version" not in config:
        kind = config.get("model_type") or config.get("architectures")
        if kind and kind not in _KNOWN:
            raise UserError(
                f"{path} is a network of transformers, {str(kind)[:_LONGEST]!r}, which dptmat does not know; expected "
                "one that dptmat push wrote"
            )
        return None
    model, trimap = config.get("model"), config.get("trimap")
    if not isinstance(model, str) or not isinstance(trimap, bool):
        raise UserError(f"{path}: its {CONFIG} does not tell the network and whether it takes a trimap; restore it")
    return {"model": model, "trimap": trimap}


def write_network(folder: str | Path, network: MattingNetwork, config: dict[str, Any]) -> None:
    """Write a network into a folder that is there.

    Args:
        folder: Where the two files go.
        network: Of `dptmat.create_model`.
        config: ``model`` and ``trimap``, and what else is to be told of it: plain values.

    Raises:
        OSError: A file cannot be written.
    """
    from safetensors.torch import save

    # Each with memory of its own, as safetensors asks for.
    content = save({name: value.detach().cpu().clone().contiguous() for name, value in network.state_dict().items()})
    write_whole(Path(folder, WEIGHTS), lambda file: file.write(content))
    text = json.dumps(config, indent=2) + "\n"
    write_whole(Path(folder, CONFIG), lambda file: file.write(text.encode()))
