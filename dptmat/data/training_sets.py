"""The parts of a data set to train on: found in its folders, by its layout."""

from pathlib import Path

from dptmat.errors import UserError

# As their authors laid them out: the folders of photographs and alphas.
LAYOUTS = [
    ("P3M-10k", "train/blurred_image", "train/mask"),
    ("AM-2k", "train/original", "train/mask"),
]
CUTOUTS = "train/cutout"  # where the cut-outs belong that `dptmat cutout` makes of them
_FOREGROUNDS = "train/fg"  # where the authors' own code has estimated foregrounds


def find_photographs(data: str | Path) -> tuple[Path, Path]:
    """Find the photographs of a data set and their alphas.

    Raises:
        UserError: It is laid out like none of LAYOUTS.
    """
    data = Path(data)
    if not data.is_dir():
        raise UserError(f"`data` {data} is no folder; give that of a data set")
    for _, photographs, alphas in LAYOUTS:
        if (data / photographs).is_dir() and (data / alphas).is_dir():
            return data / photographs, data / alphas
    known = "; ".join(f"{photographs} and {alphas} ({name})" for name, photographs, alphas in LAYOUTS)
    raise UserError(f"`data` {data} is laid out like no known data set to train on: {known}; name its folders instead")


def choose_foregrounds(
    data: str | Path | None, fg: str | Path | None, alpha: str | Path | None
) -> tuple[str | Path, str | Path | None]:
    """Choose foregrounds and alphas among what is given: ``fg`` and ``alpha`` win over ``data``; each may be None.

    Raises:
        UserError: There are none; or as for `find_foregrounds`.
    """
    if fg is not None:
        return fg, alpha
    if data is not None and alpha is None:
        return find_foregrounds(data)
    raise UserError("`fg` is missing; give foregrounds, or as `data` a data set of a known layout")


def find_foregrounds(data: str | Path) -> tuple[Path, Path | None]:
    """Find the foregrounds of a data set and their alphas: cut-outs, which need none, or else estimated colours.

    Raises:
        UserError: There are none: these data sets come as photographs, whose colours are not those of the foreground.
    """
    data = Path(data)
    if (data / CUTOUTS).is_dir():
        return data / CUTOUTS, None
    _, alphas = find_photographs(data)
    if (data / _FOREGROUNDS).is_dir():
        return data / _FOREGROUNDS, alphas
    raise UserError(
        f"`data` {data} holds photographs, but no foregrounds with colours of their own; make them once: "
        f"dptmat cutout --data {data} --out {data / CUTOUTS}"
    )
