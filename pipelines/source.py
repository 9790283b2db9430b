"""What a data source has to offer, so that the loader can run its graph: pre-training and fine-tuning have one each.

And what the two are made of, which the data path does not know.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

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
        read: "Read",
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

    def own(self, bad: Mapping[str, str]) -> dict[str, str]:
        """Take those of some bad files that are the source's."""

    def count_bad(self, bad: Mapping[str, str]) -> Iterable["Count"]:
        """Count what cannot be shown among all that the source has, by kind; files of other data sets do not count."""


class Read(Protocol):
    """What reads the files of a batch: `dptmat.pipelines.read_ahead.Reader`."""

    def __call__(self, paths: Iterable[str], *, srgb: bool = False) -> list[np.ndarray]: ...


class Count(NamedTuple):
    """How many files of a kind are bad."""

    kind: str  # "photographs", "foregrounds" or "backgrounds"
    bad: int
    total: int


class Photographs(Protocol):
    """Paths of photographs by their numbers: `dptmat.data.index.ImageIndex`."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> str: ...
    def occurrences(self, paths: Iterable[str]) -> np.ndarray:
        """Count how often each of some absolute paths is among them: int64."""


class Order(Protocol):
    """Which sample ids come when: `dptmat.data.sampler.Sampler`."""

    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def world_size(self) -> int: ...
    def micro_batch(self, step: int, part: int, size: int) -> np.ndarray: ...
    def images_of(self, ids: np.ndarray) -> np.ndarray: ...
    def substitutes(self, ident: int) -> Iterator[int]: ...


class BadFiles(Protocol):
    """What is left out: `dptmat.training.quarantine.Quarantine`."""

    @property
    def bad(self) -> Mapping[str, str]:
        """Reason of each bad file, by its absolute path."""

    def add(self, path: str, reason: str) -> None:
        """Leave out a further file."""
