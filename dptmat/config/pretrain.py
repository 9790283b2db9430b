"""Settings of a pre-training run: names, defaults, units and limits."""

import dataclasses

from dptmat.config.run import DATA, OPTIM, RunConfig
from dptmat.config.settings import setting
from dptmat.errors import UserError

TRIMAP = "Trimap and alpha"  # heading of the help text


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Settings of a pre-training run; the defaults are the published ones."""

    data: str = setting(
        dataclasses.MISSING,
        "Photographs: a folder, nested or not, or a text file of paths.",
        unit="DIR|FILE",
        group=DATA,
        free=True,
    )

    cell: int = setting(7, "Side of a trimap's cell.", unit="PIXELS", low=1, group=TRIMAP)
    unknown: float = setting(0.75, "Share of unknown cells.", unit="0..1", low=0.0, high=1.0, group=TRIMAP)
    foreground: float = setting(
        0.125, "Share of foreground cells; the rest is background.", unit="0..1", low=0.0, high=1.0, group=TRIMAP
    )
    alpha_mode: str = setting(
        "pixel", "One random alpha per unknown pixel or per unknown cell.", choices=("pixel", "block"), group=TRIMAP
    )

    epochs: int = setting(100, "Passes over the photographs.", low=1, group=OPTIM)

    def __post_init__(self):
        super().__post_init__()
        if self.cell > self.size:
            raise UserError(f"--cell {self.cell} is more than --size {self.size}; a cell must fit into the input")
        if self.unknown + self.foreground > 1:
            raise UserError(
                f"--unknown {self.unknown} and --foreground {self.foreground} add up to more than 1; "
                "they are shares of the same cells"
            )
