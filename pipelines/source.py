"""What a data source has to offer, so that the loader can run its graph: pre-training and fine-tuning have one each."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np


class Source(Protocol):
    """The graph of a task, and what it is given for any sample ids.

    Everything is a function of the ids and of the files known to be bad, ``bad``: reasons by absolute path.
    """

    @property
    def outputs(self) -> Callable[..., Any]:
        """What makes one batch, a named tuple, of the tensors that the graph gives."""

    def graph(self, feed: Callable[[], tuple], **options: Any) -> Any:
        """Build a DALI pipeline; ``feed`` gives the arguments of the next batch, ``options`` are those of the graph."""

    def arguments(
        self,
        ids: np.ndarray,  # int64 [N]
        bad: Mapping[str, str],
    ) -> tuple:
        """Give the graph's arguments for one batch."""

    def files(
        self,
        ids: np.ndarray,  # int64 [N]
        bad: Mapping[str, str],
    ) -> list[str]:
        """List the files that the graph reads for the samples."""

    def require_some(self, bad: Mapping[str, str]) -> None:
        """Refuse to go on where nothing is left; raises UserError."""

    def count_bad(self, bad: Mapping[str, str]) -> Iterable[tuple[str, int, int]]:
        """Count the bad files among those of the source, by kind: (kind, number of bad ones, number of all)."""
