"""The index of a packed folder: a pure function of its shards, the same bytes whoever writes it."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from dptmat.data.shard_list import INDEX, TABLE, Shard, render_index
from dptmat.data.shard_table import ENTRY
from dptmat.data.shard_writer import escape_name, parse_idx
from dptmat.data.storage import Store
from dptmat.errors import UserError, few, first_line
from dptmat.tasks.pack import LEFT_OUT, PLAN, digest, done_shards, read_plan, remove_left_over
from dptmat.tasks.pack_shard import DONE, name_shard


class Packed(NamedTuple):
    """What has been packed."""

    images: int
    bytes: int
    shards: int
    small: int  # photographs that were left out because of their size
    bad: int
    first_bad: list[tuple[str, str]]  # some of those that were left out: name and reason


_SHOWN = 10  # bad photographs


def finish(out: Store) -> Packed:
    """Write the index of a folder all of whose shards are done, and a list of what was left out.

    Raises:
        UserError: Shards are missing, or are not what was begun here; or no photograph is in any.
        OSError: It cannot be read or written.
    """
    plan = read_plan(out)
    if plan is None:
        raise UserError(f"`out` {out.url} holds no {PLAN}: nothing has been packed there yet; see whether it is right")
    missing = sorted(set(range(plan["shards"])) - done_shards(out))
    if missing:
        raise UserError(
            f"`out` {out.url}: {len(missing)} of {plan['shards']} shards are not packed yet: "
            f"{few([name_shard(shard) for shard in missing])}; dptmat pack with the settings before packs them"
        )
    records = list(_read_records(out, plan))
    shards = [Shard(f"{name}.tar", record["images"], record["bytes"], record["digest"]) for name, record in records]
    bad = [(name, reason) for _, record in records for _, name, reason in record["bad"]]
    small = sum(len(record["small"]) for _, record in records)
    images = sum(shard.images for shard in shards)
    if not images:
        reasons = f", such as {': '.join(bad[0])}" if bad else ""
        if small:
            reasons = f": {small} are smaller than `min_side` {plan['settings']['min_side']}" + ", others bad" * bool(
                bad
            )
        raise UserError(f"none of the {len(bad) + small} photographs of `data` could be packed{reasons}")
    out.write(TABLE, lambda file: _write_table(file, out, shards))
    lines = b"".join(escape_name(name) + b"\t" + escape_name(reason) + b"\n" for name, reason in bad)
    out.write(LEFT_OUT, lambda file: file.write(lines))
    out.write(INDEX, lambda file: file.write(render_index(shards, plan["settings"])))
    remove_left_over(out, lambda stem, age: True)
    return Packed(images, sum(shard.bytes for shard in shards), len(shards), small, len(bad), bad[:_SHOWN])


def _read_records(out: Store, plan: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and description of each shard, which has to be one of the plan, and whole."""
    fingerprint = digest(plan)
    for shard in range(plan["shards"]):
        name = name_shard(shard)
        record = json.loads(out.read(name + DONE))
        if record["plan"] != fingerprint:
            raise UserError(f"{out.url}/{name} was packed otherwise than the rest; {_again(name)}")
        try:
            size = out.size(f"{name}.tar")
        except FileNotFoundError:
            size = 0
        if size != record["bytes"]:
            raise UserError(f"{out.url}/{name}.tar has {size:,} bytes of {record['bytes']:,}; {_again(name)}")
        yield name, record


def _again(name: str) -> str:
    return f"delete {name}{DONE}, and dptmat pack makes the shard anew"


def _write_table(file: BinaryIO, out: Store, shards: list[Shard]) -> None:
    for shard in shards:
        name = shard.name.removesuffix(".tar")
        try:
            entries = parse_idx(out.read(f"{name}.idx"))
        except (ValueError, FileNotFoundError) as error:
            raise UserError(f"{out.url}/{name}.idx is damaged: {first_line(error)}; {_again(name)}") from error
        if len(entries) != shard.images or any(entries["offset"] + entries["length"] > shard.bytes):
            raise UserError(f"{out.url}/{name}.idx does not belong to its shard; {_again(name)}")
        file.write(entries.astype(ENTRY).tobytes())
