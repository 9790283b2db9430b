"""The images, trimaps and alphas of a test set: found in its folders, by its layout, and paired."""

from pathlib import Path

from dptmat.data.cases import Case, pair
from dptmat.defaults import TRIMAP_SOURCES
from dptmat.errors import UserError

# Test sets as their authors, or those who composed them, laid them out: the folders of images, alphas and trimaps.
LAYOUTS = [
    ("Composition-1k", "merged", "alpha_copy", "trimaps"),
    ("alphamatting.com", "input_training_lowres", "gt_training_lowres", "trimap_training_lowres/Trimap1"),
    ("alphamatting.com", "image", "alpha", "trimap"),
    ("AIM-500", "original", "mask", "trimap"),
    ("P3M-500-P", "blurred_image", "mask", "trimap"),
    ("P3M-500-NP", "original_image", "mask", "trimap"),
    ("Distinctions-646", "merged", "alpha", None),
    ("Distinctions-646", "merged", "GT", None),
    ("Distinctions-646", "image", "GT", None),
]
_TRIMAPS = ("trimaps", "trimap")


def list_cases(
    *,
    data: str | Path | None = None,
    image: str | Path | None = None,
    trimap: str | Path | None = None,
    alpha: str | Path | None = None,
    predictions: str | Path | None = None,
    region: str = "unknown",
    leave_out: str | Path | None = None,
) -> list[Case]:
    """List the cases of a test set for `evaluate`.

    Args:
        data: A folder whose layout is one of LAYOUTS; what it has stands in for the others that are not given.
        image, alpha: Each as ``where`` of `dptmat.data.cases.list_images`. With predictions there need be no
            image.
        trimap: The same, or one of TRIMAP_SOURCES for none.
        predictions: The same, if alphas are scored as files.
        region: Whose pixels count; where it is not "unknown", predictions need no trimaps.
        leave_out: As for `list_images`.

    Raises:
        UserError: Something is missing: a parameter, a folder, or the partner of an image. The images say which there
            must be, with predictions the true alphas.
    """
    folders = {"image": image, "alpha": alpha, "trimap": trimap}
    needed = ["image", "alpha", "trimap"] if predictions is None else ["alpha", "trimap"]
    if predictions is not None and region != "unknown":
        needed.remove("trimap")
    if data is not None:
        found = _find_folders(Path(data), [kind for kind in needed if folders[kind] is None])
        folders = {kind: where or found.get(kind) for kind, where in folders.items()}
    for kind in needed:
        if folders[kind] is None:
            ways = f"a folder, or {' or '.join(TRIMAP_SOURCES)} if there are none" if kind == "trimap" else "a folder"
            if kind == "trimap" and predictions is not None:
                ways += "; or score the whole image by `region` whole"
            raise UserError(f"`{kind}` is missing{f' in `data` {data}' if data else ''}; give {ways}")
    if folders["trimap"] in TRIMAP_SOURCES:
        folders["trimap"] = None
    if predictions is None:
        return pair(None, leave_out=leave_out, **folders)
    return pair(
        {"prediction": "predictions"}, leave_out=leave_out,
        alpha=folders["alpha"], prediction=predictions, image=folders["image"], trimap=folders["trimap"],
    )  # fmt: skip


def _find_folders(data: Path, needed: list[str]) -> dict[str, Path]:
    """Find the folders of a test set by its layout; trimaps may be missing."""
    if not data.is_dir():
        raise UserError(f"`data` {data} is no folder; give that of a test set")
    layouts = []
    for _, *folders in LAYOUTS:
        named = zip(("image", "alpha", "trimap"), folders, strict=True)
        found = {kind: data / folder for kind, folder in named if folder and (data / folder).is_dir()}
        for folder in _TRIMAPS:  # made for a test set that came without
            if (data / folder).is_dir():
                found.setdefault("trimap", data / folder)
        if all(kind in found or kind == "trimap" for kind in needed):
            layouts.append(found)
    if not layouts:
        known = "; ".join(f"{', '.join(filter(None, folders))} ({name})" for name, *folders in LAYOUTS)
        raise UserError(
            f"`data` {data} is laid out like no known test set: {known}; give `image`, `trimap` and `alpha`"
        )
    return max(layouts, key=len)  # the first of those with most
