"""What a user points training at, whatever it is: files, lists, shards, here or in an object store."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from dptmat.data.containers import CONTAINERS, is_container
from dptmat.data.folders import has_images, is_litter
from dptmat.data.image_io import EXTENSIONS
from dptmat.data.index import ImageIndex
from dptmat.data.shard_list import INDEX
from dptmat.data.shards import ShardIndex
from dptmat.data.storage import SCHEMES, Store, is_url, open_store
from dptmat.errors import UserError

PhotoIndex: TypeAlias = ImageIndex | ShardIndex

_MOST_FILES = 1_000_000  # that a pattern may stand for
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def open_photographs(
    data: str | Path,
    parameter: str = "data",
    begun_with: str | Path | None = None,
    leave_out: str | Path | None = None,
) -> PhotoIndex:
    """Open the photographs of a user.

    Args:
        data: A folder of image files or a text file of their paths (`ImageIndex.open`), "-" for such a list from the
            standard input; a folder that `dptmat pack` or `dptmat index` has written; a tar, parquet or TFRecord file,
            a folder or a list of them, or several by their numbers, as in train-{000..146}.tar. Folders and files may
            lie in an object store: s3://, gs://, az://, https://.
        parameter: How messages call ``data``.
        begun_with, leave_out: As for `ImageIndex.open`.

    Raises:
        UserError: There is no photograph, or what there is cannot be read.
        OSError: A folder or a file cannot be read.
    """
    text, called = str(data), f"`{parameter}` {data}"
    if text == "-":
        return _take_list(ImageIndex.open(text, parameter), parameter, called)
    if is_url(text):
        return _open_url(text, parameter)
    path = Path(data)
    if _RANGE.search(text) and not path.exists():
        return _open_pattern(str(path.parent), path.name, parameter)
    if path.name == INDEX and path.is_file():
        path = path.parent
    if path.is_file() and is_container(path.name):
        return ShardIndex.scan(open_store(path.absolute().parent, parameter), [path.name], called)
    if path.is_dir():
        if (path / INDEX).is_file():
            return ShardIndex.open(open_store(path, parameter), called)
        if not has_images(path):
            store = open_store(path, parameter)
            if names := _containers([name for name, _ in store.names()]):
                return ShardIndex.scan(store, names, called)
    index = ImageIndex.open(data, parameter, begun_with, leave_out)
    return index if path.is_dir() else _take_list(index, parameter, called)


def _take_list(index: ImageIndex, parameter: str, called: str) -> PhotoIndex:
    """Take a list of files that are one photograph each as it is; its lines may also name files of many."""
    first = index[0]
    if re.search(rf"(^|/)({'|'.join(SCHEMES)}):/", first):  # the list's folder stands before it
        raise UserError(
            f"{called} lists addresses; give the folder in the store that holds them, or NAME-{{000..146}}.tar"
        )
    if not is_container(first):
        return index
    paths = [os.path.abspath(path) for path in index.take(range(len(index)))]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return ShardIndex.scan(open_store(root, parameter), [os.path.relpath(path, root) for path in paths], called)


def _open_url(url: str, parameter: str) -> PhotoIndex:
    called = f"`{parameter}` {url}"
    parent, _, last = url.rstrip("/").rpartition("/")
    if _RANGE.search(last):
        return _open_pattern(parent, last, parameter)
    if is_container(last) or last == INDEX:
        store = open_store(parent, parameter)
        return ShardIndex.open(store, called) if last == INDEX else ShardIndex.scan(store, [last], called)
    store = open_store(url, parameter)
    try:
        store.size(INDEX)
    except FileNotFoundError:
        return _list_store(store, called)
    return ShardIndex.open(store, called)


def _list_store(store: Store, called: str) -> PhotoIndex:
    """Take the images below a prefix, or if there are none the files of many."""
    objects = [found for found in store.names() if not _is_in_litter(found[0])]
    images = [(name, size) for name, size in objects if name.lower().endswith(EXTENSIONS)]
    if images:
        return ShardIndex.of_files(store, images)
    if containers := _containers([name for name, _ in objects]):
        return ShardIndex.scan(store, containers, called)
    raise UserError(
        f"{called} holds no photograph among {len(objects)} objects (looked for {INDEX}, "
        f"{', '.join((*CONTAINERS, *EXTENSIONS))}); see whether the prefix is right"
    )


def _containers(names: list[str]) -> list[str]:
    return [name for name in names if is_container(name) and not _is_in_litter(name)]


def _is_in_litter(name: str) -> bool:
    return any(map(is_litter, name.split("/")))


def _open_pattern(parent: str, pattern: str, parameter: str) -> ShardIndex:
    """Open the files that a name with {FIRST..LAST} stands for, whose numbers have as many digits as FIRST."""
    called = f"`{parameter}` {parent}/{pattern}"
    names = list(_expand(pattern, called))
    if not all(map(is_container, names)):
        raise UserError(f"{called}: only {', '.join(CONTAINERS)} files are named by numbers; give a folder")
    return ShardIndex.scan(open_store(parent, parameter), names, called)


def _expand(pattern: str, called: str) -> Iterator[str]:
    found = _RANGE.search(pattern)
    if not found:
        yield pattern
        return
    first, last = found.groups()
    if not int(first) <= int(last) < int(first) + _MOST_FILES:
        raise UserError(f"{called}: {found[0]} does not count upwards; write {{FIRST..LAST}}")
    for number in range(int(first), int(last) + 1):
        for rest in _expand(pattern[found.end() :], called):
            yield f"{pattern[: found.start()]}{number:0{len(first)}d}{rest}"
