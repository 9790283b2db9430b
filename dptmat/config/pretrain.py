"""Settings of a pre-training run: names, defaults, units and limits."""

import dataclasses

from dptmat.config.run import AUGMENTATION, DATA, METHOD, MODEL, OPTIMIZATION, VALIDATION, RunConfig
from dptmat.config.settings import setting
from dptmat.defaults import ALPHA_MODES, CELL, FOREGROUND_SHARE, UNKNOWN_SHARE
from dptmat.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Settings of a pre-training run; the defaults are the published ones."""

    data: str = setting(
        dataclasses.MISSING,
        "Photographs: a folder of image files, searched with its subfolders; a text file with a path per line (-: from "
        "the standard input); a folder of dptmat pack or index; or tar, parquet or TFRecord files (a folder, a file, "
        "or NAME-{000..146}.tar). Also in an object store: s3://, gs://, az://, https://.",
        unit="DIR|FILE|URL",
        group=DATA,
        changeable_on_resume=True,  # the photographs themselves are compared
    )

    fit: str = setting(
        "crop",
        "How photographs fill the square: crop (shrunk to its side, antialiased, and their middle taken), or squash "
        "(resized to it whatever their shape, linearly, not antialiased), as DPT's released code does.",
        choices=("crop", "squash"),
        group=DATA,
    )
    background: str = setting(
        "pairing",
        "Photograph behind a sample: another one of its micro-batch (pairing), or one drawn anew from all (anew), as "
        "DPT's released code does; the paper says no more than another photograph.",
        choices=("pairing", "anew"),
        group=DATA,
    )

    cell: int = setting(
        CELL, "Side of the square cells that a random trimap consists of.", unit="PIXELS", low=1, group=METHOD
    )
    unknown: float = setting(
        UNKNOWN_SHARE, "Share of the trimap's cells that are unknown.", unit="0..1", low=0.0, high=1.0, group=METHOD
    )
    foreground: float = setting(
        FOREGROUND_SHARE, "Share of the cells that are foreground; the rest is background.", unit="0..1", low=0.0,
        high=1.0, group=METHOD,
    )  # fmt: skip
    alpha_mode: str = setting(
        "pixel",
        "Draw a random alpha for each unknown pixel, or one for each unknown cell (block).",
        choices=ALPHA_MODES,
        group=METHOD,
    )

    alpha_levels: int = setting(
        256,
        "Levels of a random alpha, 0, 1, 2 and so on over 255: 256 as in the paper, or 255 as in DPT's released code, "
        "where no unknown pixel is 1.",
        low=255,
        high=256,
        group=METHOD,
    )
    move_alpha: bool = setting(
        False,
        "Make alpha first, then move it together with the foreground, with nothing around them, and read the trimap "
        "from the moved alpha, as DPT's released code does; or move the photographs alone, as the paper's text says.",
        group=METHOD,
    )
    interpolation: bool = setting(
        False,
        "Draw the interpolations of a foreground and an alpha that are moved together from nearest, linear, cubic and "
        "Lanczos, as DPT's released code does; or move them linearly.",
        group=AUGMENTATION,
    )
    augment_background: bool = setting(
        True,
        "Augment backgrounds as foregrounds (paper), or leave them as they are, as DPT's released code does.",
        group=AUGMENTATION,
    )
    colors: str = setting(
        "hue",
        "Change the hue alone (paper), or in HSV the hue by whole degrees, saturation and value (hsv), as DPT's "
        "released code does.",
        choices=("hue", "hsv"),
        group=AUGMENTATION,
    )
    coarsest_everywhere: bool = setting(
        False,
        "Count the losses of the coarsest of three outputs (stride 8) over the whole picture, and put it in place of "
        "the others in the known region, as DPT's released code does; or count each in the unknown region alone, as "
        "the paper does.",
        group=MODEL,
    )

    epochs: int = setting(
        100, "Passes over the photographs, unless the steps are given.", low=1, high=10**6, group=OPTIMIZATION
    )

    val_image: str = setting(
        "",
        "Images with real mattes to score the network on at the start and with every checkpoint, shown their trimaps "
        "and shown none. This tells whether a pre-training learns; of two it does not tell which makes the better "
        "fine-tuning, as the method's authors remark.",
        unit="DIR|FILE",
        group=VALIDATION,
        changeable_on_resume=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell > self.size:
            raise UserError(f"`cell` {self.cell} is more than `size` {self.size}; a cell must fit into the input")
        if self.interpolation and not self.move_alpha:
            raise UserError("`interpolation` is that of an alpha that is moved; give `move_alpha` with it, or neither")
        if self.unknown + self.foreground > 1:
            raise UserError(
                f"`unknown` {self.unknown} and `foreground` {self.foreground} add up to more than 1; "
                "they are shares of the same cells"
            )
