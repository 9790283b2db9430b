"""Foregrounds, mattes and backgrounds before a fine-tuning: what it would refuse, leave out, or learn wrong."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np

from dptmat.contact_sheets import matte_strip, stack_strips
from dptmat.data.cases import Case, compose, list_images, look_up, require_file_apart, spellings
from dptmat.data.cutouts import opacity_of, read_foreground
from dptmat.data.folders import is_image
from dptmat.data.image_io import require_same_size
from dptmat.data.index import ImageIndex
from dptmat.data.matte_faults import HALO, is_multiplied, matte_faults, measure_halo
from dptmat.data.photographs import open_photographs
from dptmat.device import count_cores
from dptmat.errors import UserError, few
from dptmat.file_kinds import name_kind_of
from dptmat.tasks.make_trimaps import MOST_SHOWN
from dptmat.tasks.score import map_ahead, reason_of

_AT_ONCE = 8  # foregrounds at most that are measured simultaneously: each takes some 200 bytes per pixel, up to 0.6 MP


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what fine-tuning does about it, and what the user can."""

    effect: str  # "refuses" or "leaves out", or else what it does
    remedy: str


KINDS = {
    "no matte": Kind("refuses", "give the foreground an alpha of the same name"),
    "no alpha channel": Kind("refuses", "save the cut-out as PNG or WebP with transparency"),
    "unreadable": Kind("refuses", "what it is stands beside it"),
    "sizes differ": Kind("refuses", "make them one width and height"),
    "useless": Kind("leaves out", "a matte that is opaque or empty throughout teaches nothing"),
    "inverted": Kind("trains on it", "is the foreground white in the alpha? invert it"),
    "multiplied": Kind("trains on it", "export it with straight alpha: its edges become dark"),
    "halo": Kind("trains on it", "estimate the foreground's own colours: dptmat cutout"),
    "noise": Kind("trains on it", "set what is almost 0 or 255 to it; save alphas as PNG, not as JPEG"),
    "mask": Kind("trains on it", "a mask without a soft edge teaches hard edges"),
    "not opaque": Kind("trains on it", "right for smoke or glass alone; else stretch alpha to 255"),
    "not empty": Kind("trains on it", "right where it fills the image; else set the background to 0"),
    "small": Kind("trains on it", "it is enlarged to the crop, and blurred"),
    "twice": Kind("trains on it", "files of the same bytes count more; keep one"),
    "two mattes": Kind("trains on it", "the file of alpha counts, not the foreground's own alpha channel"),
    "no foreground": Kind("leaves out", "an alpha without a foreground of its name is not read"),
    "background too": Kind("trains on it", "a foreground among the backgrounds; take it out of these"),
    "few backgrounds": Kind("in small steps", "add photographs, or give finetune a smaller batch size"),
}
_OF_COLORS = ("halo", "multiplied", "small", "two mattes")  # kinds that the file of the colours is named for
_COMMON_WORDS = ("alpha", "matte", "mask", "fg", "foreground", "gt", "image")  # in names of foregrounds and alphas
_MOST_NAMED = 10  # faults of a kind
BATCH = 40  # samples: the default of `finetune`, which needs as many backgrounds


@dataclass(frozen=True)
class Fault:
    """Something that is wrong: its kind, of KINDS, where, and what is there."""

    kind: str
    name: str
    detail: str


@dataclass(frozen=True)
class Checked:
    """A foreground that was looked at."""

    case: Case
    faults: list[Fault]
    halo: float = 0.0


@dataclass
class Found:
    """The files that there are, and what is wrong with them so far."""

    cases: list[Case]
    counts: dict[str, int]  # of files, by the parameters
    faults: list[Fault] = field(default_factory=list)


def find_mattes(fg: str | Path, alpha: str | Path | None = None, bg: str | Path | None = None) -> Found:
    """Find the files to check, and compare their names; backgrounds are counted, and not decoded.

    Args:
        fg, alpha: As for `dptmat.data.cutouts.pair_foregrounds`.
        bg: As for `dptmat.data.photographs.open_photographs`.

    Raises:
        UserError: A folder is missing or holds no image, or no foreground has a partner or an alpha channel.
    """
    colors = list_images("fg", fg)
    mattes = {} if alpha is None else list_images("alpha", alpha)
    found = Found([], {"fg": len(colors), **({} if alpha is None else {"alpha": len(mattes)})})
    if alpha is None:
        _take_cutouts(found, colors, fg)
    elif all(Path(where).is_file() and is_image(where) for where in (fg, alpha)):  # partners whatever their names
        found.cases.append(Case(Path(fg).stem, fg=Path(fg), alpha=Path(alpha)))
    else:
        _take_pairs(found, colors, mattes)
    if not found.cases:
        first, lacks = found.faults[0], "an alpha channel" if alpha is None else f"a partner in `alpha` {alpha}"
        raise UserError(f"no foreground of `fg` {fg} has {lacks}, such as {first.name}: {first.detail}")
    for files in _same_content([*colors.values()]) + _same_content([*mattes.values()]):
        found.faults.append(Fault("twice", str(files[0]), f"the same bytes as {few(list(map(str, files[1:])))}"))
    if bg is not None:
        _take_backgrounds(found, bg, [*colors.values()])
    return found


def _take_cutouts(found: Found, colors: dict[str, Path], fg: str | Path) -> None:
    for name, path in colors.items():
        if opacity_of(path) is False:
            found.faults.append(Fault("no alpha channel", str(path), name_kind_of(path) or "an image"))
        else:
            found.cases.append(Case(name, fg=path))


def _take_pairs(found: Found, colors: dict[str, Path], mattes: dict[str, Path]) -> None:
    """Pair what has the same name, and look for names that are nearly the same."""
    partners, owners = spellings(mattes), spellings(colors)
    lonely = {name: path for name, path in mattes.items() if look_up(owners, name) is None}
    near = {_rough(name): path for name, path in lonely.items()}
    for name, path in colors.items():
        if matte := look_up(partners, name):
            found.cases.append(Case(name, fg=path, alpha=matte))
        else:
            twin = near.get(_rough(name))
            found.faults.append(
                Fault("no matte", str(path), f"{twin} is nearly of its name" if twin else f"there is no alpha {name}")
            )
    found.faults += [Fault("no foreground", str(path), f"there is none named {name}") for name, path in lonely.items()]


def _rough(name: str) -> str:
    """Reduce a name to what is left without its folder, case, blanks and words such as alpha."""
    last = re.split(r"[/\\]", compose(name).casefold())[-1]
    plain = re.sub(r"[^\w]|_", " ", last)
    return "".join(word for word in plain.split() if word not in _COMMON_WORDS)


def _same_content(paths: Iterable[Path], among: Iterable[str | Path] = ()) -> list[list[Path]]:
    """Group files of the same bytes; with ``among`` those of ``paths`` that are among these, too."""
    by_size: dict[int, list[tuple[Path, bool]]] = defaultdict(list)
    for path, is_own in [*((path, True) for path in paths), *((Path(path), False) for path in among)]:
        try:
            by_size[os.stat(path).st_size].append((path, is_own))
        except OSError:
            continue  # its reader tells it
    groups: dict[bytes, list[tuple[Path, bool]]] = defaultdict(list)
    for same_size in by_size.values():
        if len(same_size) > 1 and any(is_own for _, is_own in same_size):
            for path, is_own in same_size:
                groups[_digest(path)].append((path, is_own))
    wanted = {True, False} if among else {True}
    return [
        [path for path, _ in group]
        for digest, group in groups.items()
        if digest and len(group) > 1 and {is_own for _, is_own in group} == wanted
    ]


def _digest(path: Path) -> bytes:
    """Digest of a file's bytes; empty if it is no plain file or cannot be read."""
    digest = blake2b(digest_size=16)
    try:
        if not path.is_file():
            return b""
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return b""
    return digest.digest()


def _take_backgrounds(found: Found, bg: str | Path, colors: list[Path]) -> None:
    index = open_photographs(bg, "bg")
    index.require_some_file(f"`bg` {bg}")
    found.counts["bg"] = len(index)
    if len(index) < BATCH:
        detail = f"{len(index)}, where a step of {BATCH} samples, the default, needs as many"
        found.faults.append(Fault("few backgrounds", str(bg), detail))
    if isinstance(index, ImageIndex):
        for path, *others in _same_content(colors, among=index.take(range(len(index)))):
            found.faults.append(Fault("background too", str(path), f"the same bytes as {few(list(map(str, others)))}"))


def check_mattes(cases: list[Case], size: int = 512) -> Iterator[Checked]:
    """Read foregrounds and mattes on all cores, and measure what is wrong with them.

    Args:
        cases: As of `find_mattes`.
        size: Side of the crops of training, in pixels.

    Yields:
        What was found of each case, in order.
    """
    at_once = min(count_cores(), _AT_ONCE)
    with ThreadPoolExecutor(at_once) as threads:
        yield from map_ahead(threads, partial(_check_one, size), cases, at_once)


def _check_one(size: int, case: Case) -> Checked:
    path = str(case.alpha or case.fg)
    try:
        colors, alpha = read_foreground(case)
    except UserError as error:
        said = str(error).removeprefix("alpha ")
        path = path if said.startswith(f"{path} ") else str(case.fg)
        return Checked(case, [Fault("unreadable", path, said.removeprefix(f"{path} "))])
    except MemoryError:
        return Checked(case, [Fault("unreadable", path, "the memory does not suffice; make it smaller")])
    try:
        require_same_size(case.name, fg=colors, alpha=alpha)
    except UserError as error:
        return Checked(case, [Fault("sizes differ", path, reason_of(error, case).removeprefix("sizes differ: "))])
    faults = matte_faults(alpha)
    halo = 0.0 if "useless" in faults else measure_halo(colors, alpha)
    if halo > HALO:
        kind = "multiplied" if is_multiplied(colors, alpha) else "halo"
        faults[kind] = f"{halo:.0%} of the colours' range follow alpha, where up to {HALO / 2:.0%} is usual"
    if min(alpha.shape) < size:
        faults["small"] = f"{alpha.shape[1]} x {alpha.shape[0]} pixels, for crops of {size}"
    if case.alpha and opacity_of(case.path("fg")):
        faults["two mattes"] = f"{case.alpha} counts"
    if case.alpha and name_kind_of(case.alpha) == "a JPEG file":
        faults["noise"] = "alpha is a JPEG file"
    paths = {kind: str(case.fg) if kind in _OF_COLORS else path for kind in faults}
    return Checked(case, [Fault(kind, paths[kind], detail) for kind, detail in faults.items()], halo)


def require_sheet_apart(sheet: str | Path, found: Found) -> None:
    """Refuse to draw the sheet over what is read.

    Raises:
        UserError: It is so.
    """
    require_file_apart("out", sheet, ((case.name, case.paths.values()) for case in found.cases))


def summary(found: Found, checked: Sequence[Checked]) -> str:
    """Write in a line how many files there are, and how many foregrounds a fine-tuning could show."""
    counts = ", ".join(f"{name} {count:,} files" for name, count in found.counts.items())
    good = sum(would_train(each.faults) for each in checked)
    return f"{counts}; {good:,} of {found.counts['fg']:,} foregrounds can be trained on"


def would_train(faults: Iterable[Fault]) -> bool:
    """Tell whether fine-tuning would begin, and leave nothing out."""
    return not any(KINDS[fault.kind].effect in ("refuses", "leaves out") for fault in faults)


def list_faults(faults: Iterable[Fault]) -> Iterator[str]:
    """Write faults as lines, of each kind the first ones, in the order of KINDS."""
    by_kind: dict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    for kind in (kind for kind in KINDS if kind in by_kind):
        yield from (f"{kind}: {fault.name}: {fault.detail}" for fault in by_kind[kind][:_MOST_NAMED])
        if (more := len(by_kind[kind]) - _MOST_NAMED) > 0:
            yield f"{kind}: and {more} more"


def table(faults: Iterable[Fault]) -> str:
    """Write how many faults of each kind there are, and what to do, as lines for people; "" if there are none."""
    counts = Counter(fault.kind for fault in faults)
    if not counts:
        return ""
    rows = [("found", "files", "fine-tuning", "what to do")]
    rows += [(kind, f"{counts[kind]:,}", KINDS[kind].effect, KINDS[kind].remedy) for kind in KINDS if kind in counts]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(f"{a:{widths[0]}}  {b:>{widths[1]}}  {c:{widths[2]}}  {d}" for a, b, c, d in rows)


def worst_first(checked: Iterable[Checked]) -> list[Checked]:
    """Sort foregrounds: those with faults first, then by how far their colours follow alpha."""
    return sorted(checked, key=lambda each: (not each.faults, -each.halo))


def draw_sheet(checked: Sequence[Checked]) -> np.ndarray | None:  # uint8 [H, W, 3]
    """Draw the first ones that can be read, up to `MOST_SHOWN`; None if none can be."""
    readable = [each for each in checked if not {"unreadable", "sizes differ"} & {fault.kind for fault in each.faults}]
    strips = []
    for each in readable[:MOST_SHOWN]:
        told = ", ".join(fault.kind for fault in each.faults) or "nothing found"
        strips.append(matte_strip(f"{each.case.name[-30:]}: {told}"[:66], *read_foreground(each.case)))
    return stack_strips(strips) if strips else None
