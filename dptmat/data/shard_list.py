"""index.json: the shards of a folder, and what is told of each."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from dptmat.data.storage import Store
from dptmat.errors import UserError, first_line

INDEX, TABLE = "index.json", "index.bin"  # of a folder of shards
FORMAT = 1
_LARGEST = 1 << 30  # bytes of index.json: some 60 for each shard


class Shard(NamedTuple):
    """A file of photographs."""

    name: str  # relative to the folder or prefix of all
    images: int
    bytes: int
    digest: str  # of its content, or where that has not been read of where its photographs lie


class ShardList(NamedTuple):
    """What index.json tells."""

    shards: list[Shard]  # in order
    settings: dict[str, Any]  # what they were packed by
    root: str  # where they are, "" for beside it


def read_index(store: Store, called: str) -> ShardList:
    """Read index.json of a folder of shards.

    Args:
        store: The folder.
        called: How messages call it.

    Raises:
        UserError: It is of another format, or not what is written here.
        OSError: It cannot be read.
    """
    where = f"{called}: {INDEX}"
    try:
        if store.size(INDEX) > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST:,} bytes")
        content = json.loads(store.read(INDEX))
        if content["format"] != FORMAT:
            raise UserError(
                f"{where} is of format {content['format']}, and this version reads {FORMAT}; upgrade dptmat"
            )
        shards = [Shard(str(n), int(i), int(b), str(d)) for n, i, b, d in content["shards"]]
        found = ShardList(shards, dict(content["settings"]), str(content.get("root", "")))
        images = int(content["images"])
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where} is not what dptmat pack or dptmat index writes: {first_line(error)}") from error
    _require_sound(shards, images, where)
    return found


def render_index(shards: Sequence[Shard], settings: dict[str, Any], root: str = "") -> bytes:
    """Make the content of index.json.

    Args:
        shards: All shards, in order.
        settings: What they were packed by.
        root: Where the shards are, if not beside it.
    """
    head = {"format": FORMAT, "images": sum(shard.images for shard in shards), "settings": settings}
    content = {**head, **({"root": root} if root else {}), "shards": shards}
    return json.dumps(content, indent=None, separators=(",", ":")).encode() + b"\n"


def _require_sound(shards: list[Shard], images: int, where: str) -> None:
    names = [shard.name for shard in shards]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{where} names {twice} twice; write it anew by dptmat pack --finish")
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise UserError(f"{where} names shards outside of its folder; it is not what dptmat writes")
    if not images or images != sum(shard.images for shard in shards) or any(min(s.images, s.bytes) < 0 for s in shards):
        raise UserError(f"{where} tells of {images} photographs, and its shards of another number; write it anew")
