"""Which files belong together: found in folders and lists, and paired by name."""

import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import TypeVar

from dptmat.data.folders import is_image, read_lines, walk_images
from dptmat.data.image_io import EXTENSIONS
from dptmat.errors import UserError, few

_Found = TypeVar("_Found")


def list_images(parameter: str, where: str | Path, leave_out: str | Path | None = None) -> dict[str, Path]:
    """Find images: {name: path}, in the order of their paths.

    The name of an image is its path below the folder, without ending: "cat", or "clip/0001" in a subfolder. In a list
    it is the file's own name, or, where some have the same, the path below the folder that all have in common.

    Args:
        parameter: How messages call ``where``, such as "alpha".
        where: A folder, searched as by `dptmat.data.folders.walk_images`; one image; or a text file with a path per
            line, where relative ones are relative to the file's folder.
        leave_out: A folder whose content does not count, such as that which is written to.

    Raises:
        UserError: It does not exist, cannot be read, holds no image, or two images of one name.
    """
    where, called = Path(where), f"`{parameter}` {where}"
    if where.is_dir():
        found = _in_folder(where, called, leave_out)
    elif not where.exists():
        raise UserError(f"{called} does not exist; give a folder of images")
    elif is_image(where):
        found = {where: where.stem}
    else:
        found = _in_list(where, called)
    by_name: dict[str, Path] = {}
    for path, name in found.items():
        if name in by_name:
            root = where if where.is_dir() else path.parent
            one, other = (os.path.relpath(twin, root) for twin in (by_name[name], path))
            raise UserError(f"{called} holds both {one} and {other}; keep one")
        by_name[name] = path
    return by_name


def _in_folder(folder: Path, called: str, leave_out: str | Path | None) -> dict[Path, str]:
    """Find the images of a folder, with their names."""
    try:
        below = sorted(map(PurePath, walk_images(folder, called, leave_out)), key=lambda path: path.parts)
    except OSError as error:
        raise UserError(f"{called} cannot be read: {error.strerror}") from error
    if not below:
        raise UserError(f"{called} holds no image (looked for {', '.join(EXTENSIONS)} in it and below)")
    return {folder / path: _without_ending(path) for path in below}


def _in_list(path: Path, called: str) -> dict[Path, str]:
    """Find the images of a list, with their names."""
    root = path.parent if path.is_file() else Path()  # a pipe has no folder
    lines = read_lines(called, path)
    if not lines:
        raise UserError(f"{called} is an empty list; it holds one path per line")
    found = sorted((root / os.path.expanduser(line) for line in lines), key=lambda path: path.name)
    if not any(map(os.path.lexists, found)):
        line = lines[0][:200]  # of what is no list, the whole may be one line
        first = root / os.path.expanduser(line)
        raise UserError(
            f"{called}: no line is the path of a file, such as the first, {line!r}, tried as {first}; write one "
            "plain path per line, absolute or relative to the list's folder"
        )
    if len({path.stem for path in found}) == len(found):
        return {path: path.stem for path in found}
    absolute = {path: Path(os.path.abspath(path)) for path in found}
    if len(absolute) < len(found):
        twice = next(path for path in found if found.count(path) > 1)
        raise UserError(f"{called} names {twice} more than once; give each image one line")
    common = os.path.commonpath([path.parent for path in absolute.values()])
    found.sort(key=lambda path: absolute[path].parts)
    return {path: _without_ending(absolute[path].relative_to(common)) for path in found}


def _without_ending(path: PurePath) -> str:
    return path.with_suffix("").as_posix()


def spellings(found: Mapping[str, _Found]) -> dict[str, _Found]:
    """Add to what is found by names the names with composed accents, for `look_up`: macOS writes them decomposed."""
    return {compose(name): item for name, item in found.items()} | dict(found)


def compose(name: str) -> str:
    """Write the accents of a name with their letters (NFC)."""
    return unicodedata.normalize("NFC", name)


def look_up(spelled: Mapping[str, _Found], name: str) -> _Found | None:
    """Return what has a name in either spelling; None if there is nothing.

    Args:
        spelled: As of `spellings`.
        name: In any spelling.
    """
    return spelled.get(name) or spelled.get(compose(name))


@dataclass(frozen=True)
class Case:
    """The files of one image of a test set or a training set; what it does not have is None."""

    name: str  # without ending; below subfolders with these, such as "clip/0001"
    image: Path | None = None
    trimap: Path | None = None
    alpha: Path | None = None
    prediction: Path | None = None  # an alpha to be scored
    fg: Path | None = None  # colours of the foreground

    @property
    def paths(self) -> dict[str, Path]:
        """The files that there are, by the names of the fields."""
        found = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "name"}
        return {key: path for key, path in found.items() if path is not None}

    def path(self, kind: str) -> Path:
        """Return the file of a kind, that is a field.

        Raises:
            ValueError: The case has none.
        """
        if kind not in self.paths:
            raise ValueError(f"the case {self.name} has no {kind}; give it one")
        return self.paths[kind]


def pair(
    parameters: Mapping[str, str] | None = None,
    /,
    *,
    leave_out: str | Path | None = None,
    **folders: str | Path | None,
) -> list[Case]:
    """Pair the images of folders by their names, of `list_images`; the first folder says which there are.

    Where every one of them is a single image, these are partners whatever their names. Accents may be written in
    either way of Unicode.

    Args:
        parameters: How messages call a folder, where it is not the name of the field.
        leave_out: As for `list_images`.
        folders: By the fields of `Case`, such as ``alpha="test/alpha"``; each as ``where`` of `list_images`, or None
            for nothing of that kind.

    Returns:
        A case for each image of the first folder, in the order of their paths.

    Raises:
        UserError: An image has no partner in one of the other folders.
    """
    given = {kind: Path(where) for kind, where in folders.items() if where is not None}
    called = {kind: (parameters or {}).get(kind, kind) for kind in given}
    listed = {kind: list_images(called[kind], where, leave_out) for kind, where in given.items()}
    first, names = next(iter(listed.items()))
    if all(list(images.values()) == [given[kind]] for kind, images in listed.items()):
        return [Case(given[first].stem, **given)]
    found: dict[str, dict[str, Path | None]] = {name: {first: path} for name, path in names.items()}
    for kind, images in listed.items():
        partners = spellings(images)
        missing = [name for name in names if look_up(partners, name) is None]
        if missing:
            below = ", and lie in subfolders of the same name" if any("/" in name for name in names) else ""
            raise UserError(
                f"`{called[kind]}` {given[kind]} has no partner of {few(missing)} of `{called[first]}` "
                f"{given[first]}; partners have the same name, whatever their ending{below}"
            )
        for name in names:
            found[name][kind] = look_up(partners, name)
    return [Case(name, **paths) for name, paths in found.items()]


def require_file_apart(called: str, file: str | Path, files: Iterable[tuple[str, Iterable[Path]]]) -> None:
    """Refuse to write a file over others; links to them count.

    Args:
        called: How messages call the parameter.
        file: What will be written.
        files: The others, with the names of what they belong to.

    Raises:
        UserError: It is one of them.
    """
    place = os.path.realpath(file)  # which, unlike pathlib, takes links that lead in a circle
    for name, paths in files:
        if place in map(os.path.realpath, paths):
            raise UserError(f"`{called}` {file} is the file of {name}; give another name")


def require_folder(out: Path) -> None:
    """Refuse to write into a file as if it were a folder.

    Raises:
        UserError: It is one.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"`out` {out} is a file; give the name of a folder")


def require_folders_apart(folders: Iterable[Path], cases: Iterable[Case]) -> None:
    """Refuse folders that a file NAME.png of each case cannot be written into.

    Raises:
        UserError: One is a file, or would hold one of the cases' files beside what is written.
    """
    folders, cases = list(folders), list(cases)
    written = {(folder / f"{case.name}.png").parent for folder in folders for case in cases}
    require_apart(written, (path for case in cases for path in case.paths.values()))
    for folder in folders:
        require_folder(folder)


def require_apart(folders: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to write into a folder that holds a file which is read; links to the folder count.

    Raises:
        UserError: One of the inputs lies in one of ``folders``.
    """
    written = {folder.resolve() for folder in folders}
    for folder in dict.fromkeys(path.parent for path in inputs):
        if folder.resolve() in written:
            raise UserError(f"{folder} is read and would be written to as well; give another folder as `out`")
