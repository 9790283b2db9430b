"""Pack a data set: any number of machines write its shards, each of which is a pure function, and one the index."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from dptmat.data.parquet import CompressedError
from dptmat.data.parquet_rows import RowIndex
from dptmat.data.photographs import PhotoIndex, open_photographs
from dptmat.data.shard_list import INDEX, TABLE
from dptmat.data.spread import spread
from dptmat.data.storage import Store, open_store
from dptmat.errors import StoreAwayError, UserError, few, first_line
from dptmat.pipelines.encoded import find_unopened
from dptmat.pipelines.source import Photo
from dptmat.tasks.pack_shard import DONE, PackSettings, Part, name_shard, pack_part
from dptmat.tasks.pack_workers import run_here, run_on_ray

PLAN = "pack.json"  # what is packed, and how; written before the first shard
LEFT_OUT = "left_out.txt"
_LOOKED_AT = 100  # photographs, of which one at least has to be there
_OURS = re.compile(rf"\d{{6,}}\.(tar|idx|paths|json)|{INDEX}|{TABLE}|{PLAN}|{LEFT_OUT}")
_LEFT_OVER = re.compile(rf"({_OURS.pattern})\.[0-9a-f]{{8}}\.part")  # as `write_whole` calls what it has not finished
_STILL = 60  # seconds that nothing was written into a file, after which its process is taken for dead


class Plan:
    """What is packed, how and where to: the shards, of which each can be packed by itself.

    Args:
        index: The photographs.
        settings: How.
        out: Where to.

    Attributes:
        shards: Their number.

    Raises:
        UserError: None of the photographs is there.
    """

    def __init__(self, index: PhotoIndex | RowIndex, settings: PackSettings, out: Store) -> None:
        self.index, self.settings, self.out = index, settings, out
        self.shards = -(-len(index) // settings.per_shard)
        self._data, self._versions = index.digest(), versions()
        self._witness = next(photo for photo in self._spread() if not list(find_unopened([photo])))

    def _spread(self) -> Iterator[Photo]:
        """Yield some photographs; one at least is there, or the index has been refused."""
        yield from self.index.portable(spread(len(self.index), _LOOKED_AT))
        yield from (self.index.portable([number])[0] for number in range(len(self.index)))
        raise UserError("none of the photographs of `data` can be read; is their file system there?")

    def sources(self, shard: int) -> range:
        """Return the numbers of the photographs of a shard."""
        start = shard * self.settings.per_shard
        return range(start, min(start + self.settings.per_shard, len(self.index)))

    def part(self, shard: int) -> Part:
        """Return what a shard is made of."""
        numbers = self.sources(shard)
        photos = [*self.index.portable(numbers)]
        return Part(
            shard, numbers.start, photos, self.settings, digest(self.describe()), self._versions, self.out,
            self._witness,
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Describe all that the shards depend on."""
        return {
            "format": 1,
            "photographs": len(self.index),
            "shards": self.shards,
            "data": self._data,
            "settings": asdict(self.settings),
            "versions": self._versions,
        }


def versions() -> dict[str, str]:
    """Return the versions of what the content of a shard depends on."""
    packages = {name: metadata.version(name) for name in ("dptmat", "simplejpeg", "pillow")}
    return {**packages, "torch": torch.__version__.partition("+")[0]}


def digest(description: Mapping[str, Any]) -> str:
    """Return a fingerprint of a plan."""
    return blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=16).hexdigest()


def make_plan(data: str | Path, out: str | Path, settings: PackSettings) -> Plan:
    """Plan to pack the photographs of ``data``, whatever it is, into ``out``, a folder or a URL.

    Raises:
        UserError: There is no photograph, what there is cannot be read, or ``out`` cannot be opened or is ``data``.
        OSError: ``data`` cannot be read.
    """
    store = open_store(out, "out")
    if str(data) != "-" and os.path.realpath(data) == os.path.realpath(out):
        raise UserError(f"`out` {out} is what is read; give another folder")
    index: PhotoIndex | RowIndex
    try:
        index = open_photographs(data, leave_out=None if store.remote else store.url)
    except CompressedError as error:  # they can be read in order
        if error.files is None:
            raise
        index = RowIndex(*error.files)
    index.require_some_file(f"`data` {data}")
    return Plan(index, settings, store)


def pack_shard(shard: int, plan: Plan) -> None:
    """Pack one shard in this process, for schedulers of any kind; `finish` writes the index of all.

    It is a pure function: whoever packs a shard, and however often, writes the same bytes.

    Raises:
        UserError, OSError: As `dptmat.tasks.pack_shard.pack_part`, and where ``out`` was begun otherwise.
    """
    if not 0 <= shard < plan.shards:
        raise UserError(f"`shard` must be below {plan.shards}; got {shard}")
    begin(plan)
    pack_part(plan.part(shard))


def begin(plan: Plan, *, force: bool = False) -> None:
    """Write down what is packed, and how; where something is there already, it must have been packed likewise.

    Args:
        plan: What is to be packed.
        force: Whether to delete what was packed otherwise.

    Raises:
        UserError: It was packed otherwise, or something else is there.
        OSError: It cannot be written.
    """
    description = plan.describe()
    before = read_plan(plan.out)
    if before is None:
        others = sorted(name for name, _ in plan.out.names() if _OURS.fullmatch(name))
        if others:
            raise UserError(
                f"`out` {plan.out.url} holds {few(others)}, and no {PLAN}: dptmat pack has not written them; "
                "give another folder"
            )
    elif before != description:
        if not force:
            raise UserError(
                f"`out` {plan.out.url} was packed otherwise: {_difference(before, description)}; give what it was "
                "begun with, another folder, or `force` to delete what is there and pack anew"
            )
        delete(plan.out)
        before = None
    if before is None:
        content = json.dumps(description, indent=1).encode() + b"\n"
        try:
            plan.out.write(PLAN, lambda file: file.write(content), replace=False)
        except FileExistsError:  # another machine was faster
            begin(plan)
        except StoreAwayError:
            raise
        except OSError as error:
            reason = error.strerror or first_line(error)
            raise UserError(f"`out` {plan.out.url} cannot be written: {reason}; give another place") from error


def read_plan(out: Store) -> dict[str, Any] | None:
    """Read what was begun before, None where nothing was.

    Raises:
        UserError: The file holds something else.
    """
    try:
        plan = json.loads(out.read(PLAN))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{out.url}/{PLAN} is damaged: {first_line(error)}; delete the folder's content") from error
    if not isinstance(plan, dict) or not {"shards", "settings", "versions", "data"} <= plan.keys():
        raise UserError(f"{out.url}/{PLAN} is not what dptmat pack writes; give another folder")
    return plan


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Tell in a few words what two plans differ in."""
    told = []
    for kind, quote in (("settings", "`"), ("versions", "")):
        for name, value in {**before[kind], **now[kind]}.items():
            former, new = before[kind].get(name), now[kind].get(name)
            if former != new:
                told.append(f"{quote}{name}{quote} {former}, now {new}" if value is not None else name)
    if before["data"] != now["data"]:
        former, new = before.get("photographs"), now["photographs"]
        told.append(f"{former} photographs, now {new}" if former != new else "other photographs, or another order")
    return ", ".join(told) or "by another version of dptmat"


def delete(out: Store) -> None:
    """Delete what was packed into a folder; first the files that tell that there is something."""
    names = [name for name, _ in out.names() if _OURS.fullmatch(name)]
    for name in sorted(names, key=lambda name: (name != INDEX, not name.endswith(DONE), name)):
        out.delete(name)


def done_shards(out: Store) -> set[int]:
    """Return the numbers of the shards that are done."""
    stems = (name.removesuffix(DONE) for name, _ in out.names() if name.endswith(DONE))
    return {int(stem) for stem in stems if stem.isascii() and stem.isdigit()}


def missing_shards(plan: Plan, share: tuple[int, int] = (0, 1)) -> list[int]:
    """Return the numbers of the shards that are not done, of one share of all: (K, N) has each whose rest by N is K."""
    done = done_shards(plan.out)
    return [shard for shard in range(share[0], plan.shards, share[1]) if shard not in done]


def pack(
    plan: Plan,
    shards: list[int],
    *,
    workers: int = 1,
    engine: str = "local",
    address: str | None = None,
) -> Iterator[int]:
    """Pack some shards of what `begin` has begun; those that are finished stay, whatever happens.

    Args:
        plan: What is packed.
        shards: Numbers of the shards, such as `missing_shards`.
        workers: Processes of this machine.
        engine: "local" for these, "ray" for tasks of Ray.
        address: Of Ray's cluster.

    Yields:
        How many photographs more have been looked at; less than 0 where a process has died, whose shard begins anew.

    Raises:
        UserError: ``out`` cannot be written, or a process dies at a shard again and again.
        OSError: The photographs cannot be read any more.
    """
    mine = {name_shard(shard) for shard in shards}
    remove_left_over(plan.out, lambda stem, age: age > _STILL and stem in mine)
    parts = (plan.part(shard) for shard in shards)
    try:
        yield from run_on_ray(parts, address) if engine == "ray" else run_here(parts, workers)
    except StoreAwayError:
        raise
    except OSError as error:  # of reading only a store's that is away gets here
        raise UserError(
            f"`out` {plan.out.url} cannot be written: {error.strerror or first_line(error)}; the shards that are done "
            "stay: mend it, and the same command goes on"
        ) from error


def remove_left_over(out: Store, is_dead: Callable[[str, float], bool]) -> None:
    """Remove what killed processes have left of files in a local folder.

    Args:
        out: The folder.
        is_dead: Tells by a file's name up to the first dot, and the seconds since something was written into it.
    """
    if out.remote or not os.path.isdir(out.url):  # an object store shows nothing before it is complete
        return
    for entry in os.scandir(out.url):
        if _LEFT_OVER.fullmatch(entry.name) and is_dead(entry.name.partition(".")[0], _age(entry)):
            out.delete(entry.name)


def _age(entry: os.DirEntry) -> float:
    try:
        return time.time() - entry.stat().st_mtime
    except FileNotFoundError:  # it is finished
        return 0
