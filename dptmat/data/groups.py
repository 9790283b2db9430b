"""Kinds of images, for means by kind: a CSV file that gives each image of a test set its group."""

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path

from dptmat.data.cases import compose, look_up, spellings
from dptmat.data.image_io import EXTENSIONS
from dptmat.errors import UserError, few
from dptmat.file_kinds import HEAD, name_kind

_logger = logging.getLogger(__name__)

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_groups(path: str | Path, names: Sequence[str]) -> dict[str, str]:
    """Read which group each image belongs to.

    Args:
        path: A CSV file in UTF-8 whose first row names the columns ``name`` and ``group``; others do not count. Names
            are those of the images, with an ending or without.
        names: Of the images. What the file says of others is left out, which is logged.

    Returns:
        {name: group}, in the order of the file.

    Raises:
        UserError: The file cannot be read, is no such table, names an image twice, or lacks one.
    """
    called = f"`groups` {path}"
    known = spellings({name: name for name in names})
    groups: dict[str, str] = {}
    others = []
    for line, given, group in _rows(called, _read(called, path)):
        name = look_up(known, given) or known.get(compose(_without_ending(given)))
        if not group:
            raise UserError(f"{called}: line {line} gives {few([given])} no group; write one in the column group")
        if name is None:
            others.append(given)
        elif name in groups:
            raise UserError(f"{called} names {few([name])} more than once; give each image one line")
        else:
            groups[name] = group
    if missing := [name for name in names if name not in groups]:
        raise UserError(f"{called} has no group of {few(missing)}; give each image of the test set a line")
    if others:
        _logger.warning("%s: %s names are of no image and left out: %s", called, len(others), few(others))
    return groups


def _read(called: str, path: str | Path) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{called} cannot be read: {error.strerror}") from error
    kind = name_kind(content[:HEAD])
    if kind not in ("text", "") or any(byte < 32 and byte not in b"\t\n\r" for byte in content):
        what = kind if kind not in ("text", "") else "no text"
        raise UserError(f"{called} is {what}; give a CSV file in UTF-8 with the columns name and group")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _rows(called: str, text: str) -> list[tuple[int, str, str]]:
    """Return line, name and group of each row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        head = [cell.strip().lower() for cell in next(reader, [])]
        _require_head(called, head, text)
        at = [head.index(column) for column in ("name", "group")]
        return [
            (reader.line_num, *(row[column].strip() if column < len(row) else "" for column in at))  # type: ignore[misc]
            for row in reader
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise UserError(f"{called}: line {reader.line_num} is no row of a CSV file: {error}; save it anew") from error


def _require_head(called: str, head: list[str], text: str) -> None:
    if all(head.count(column) == 1 for column in ("name", "group")):
        return
    first = next(io.StringIO(text), "").rstrip("\n")[:80]
    for separator, words in _SEPARATORS.items():
        cells = [cell.strip(' "').lower() for cell in first.split(separator)]
        if {"name", "group"} <= set(cells):
            raise UserError(f"{called} separates its columns by {words}; save it with commas")
    raise UserError(f"{called} must begin with a row name,group that names its columns; it begins with {first!r}")


def _without_ending(name: str) -> str:
    return str(Path(name).with_suffix("").as_posix()) if name.lower().endswith(EXTENSIONS) else name
