"""Settings of a pre-training run: names, defaults, units and limits."""

import dataclasses

from dptmat.config.run import DATA, METHOD, MODEL, OPTIMIZATION, RunConfig
from dptmat.config.settings import setting
from dptmat.defaults import ALPHA_MODES, CELL, FOREGROUND_SHARE, UNKNOWN_SHARE
from dptmat.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Settings of a pre-training run; the defaults are the published ones."""

    data: str = setting(
        dataclasses.MISSING,
        "Photographs: a folder, searched with its subfolders, or a text file with a path per line.",
        unit="DIR|FILE",
        group=DATA,
        changeable_on_resume=True,  # the photographs themselves are compared
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell > self.size:
            raise UserError(f"`cell` {self.cell} is more than `size` {self.size}; a cell must fit into the input")
        if self.unknown + self.foreground > 1:
            raise UserError(
                f"`unknown` {self.unknown} and `foreground` {self.foreground} add up to more than 1; "
                "they are shares of the same cells"
            )
