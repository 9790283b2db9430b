"""Which files belong together: found in folders and lists, and paired by name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from dptmat.data.image_io import EXTENSIONS
from dptmat.errors import UserError, few

# Folders that systems and programs put among a user's files; so are files whose names begin with a dot.
_LITTER = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found")


def is_litter(name: str) -> bool:
    """Tell whether a file or folder of this name was put there by a system, such as ._image.jpg or @eaDir."""
    return name.startswith(".") or name in _LITTER


def list_images(parameter: str, where: str | Path) -> dict[str, Path]:
    """Find images: {name without ending: path}, sorted by name.

    Args:
        parameter: How messages call ``where``, such as "alpha".
        where: A folder (without its subfolders, and without what `is_litter`), one image, or a text file with a path
            per line; relative ones are relative to the file's folder.

    Raises:
        UserError: It does not exist, holds no image, or two images of one name.
    """
    where, called = Path(where), f"`{parameter}` {where}"
    if where.is_dir():
        images = (path for path in where.iterdir() if path.name.lower().endswith(EXTENSIONS))
        found = [path for path in images if not is_litter(path.name)]
    elif not where.exists():
        raise UserError(f"{called} does not exist; give a folder of images")
    elif where.name.lower().endswith(EXTENSIONS):
        found = [where]
    else:
        found = [where.parent / line for line in read_lines(parameter, where)]
    if not found:
        raise UserError(f"{called} holds no image (looked for {', '.join(EXTENSIONS)})")
    by_name: dict[str, Path] = {}
    for path in sorted(found, key=lambda path: path.name):
        if path.stem in by_name:
            raise UserError(f"{called} holds both {by_name[path.stem].name} and {path.name}; keep one")
        by_name[path.stem] = path
    return by_name


def read_lines(parameter: str, path: str | Path) -> list[str]:
    """Read a text file of paths or names, one a line, without the empty lines.

    Raises:
        UserError: It cannot be read; the message calls it ``parameter``.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")  # as editors on Windows begin it
    except OSError as error:
        raise UserError(f"`{parameter}` {path} cannot be read: {error.strerror}") from error
    return [line for line in text.split("\n") if line.strip()]


@dataclass(frozen=True)
class Case:
    """The files of one image of a test set or a training set; what it does not have is None."""

    name: str  # without ending
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


def pair(parameters: Mapping[str, str] | None = None, /, **folders: str | Path | None) -> list[Case]:
    """Pair the images of folders by their names without ending; the first folder says which there are.

    Where every one of them is a single image, these are partners whatever their names.

    Args:
        parameters: How messages call a folder, where it is not the name of the field.
        folders: By the fields of `Case`, such as ``alpha="test/alpha"``; each as ``where`` of `list_images`, or None
            for nothing of that kind.

    Returns:
        A case for each image of the first folder, sorted by name.

    Raises:
        UserError: An image has no partner in one of the other folders.
    """
    given = {kind: Path(where) for kind, where in folders.items() if where is not None}
    called = {kind: (parameters or {}).get(kind, kind) for kind in given}
    listed = {kind: list_images(called[kind], where) for kind, where in given.items()}
    (first, names), *others = listed.items()
    if all(list(images.values()) == [given[kind]] for kind, images in listed.items()):
        return [Case(given[first].stem, **given)]
    for kind, partners in others:
        missing = [name for name in names if name not in partners]
        if missing:
            raise UserError(
                f"`{called[kind]}` {given[kind]} has no partner of {few(missing)} of `{called[first]}` "
                f"{given[first]}; partners have the same name, whatever their ending"
            )
    return [Case(name, **{kind: images[name] for kind, images in listed.items()}) for name in names]


def require_apart(out: str | Path, inputs: Iterable[Path]) -> None:
    """Refuse to write into a folder that holds a file which is read; links to the folder count.

    Raises:
        UserError: One of the inputs lies in ``out``.
    """
    out = Path(out).resolve()
    for folder in {path.parent for path in inputs}:
        if folder.resolve() == out:
            raise UserError(f"{folder} is read and would be written to as well; give another folder as `out`")
