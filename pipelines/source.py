"""What a data source has to offer, so that the loader can run its graph: pre-training and fine-tuning have one each.

And what the two are made of, which the data path does not know.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np


class Stored(Protocol):
    """A photograph that is no file on this machine: a range of a shard, or an object in a store."""

    @property
    def name(self) -> str:
        """Where it lies, such as /data/000012.tar@5632: it is known by that as a file is by its absolute path."""

    @property
    def fetch_many(self) -> "Callable[[Sequence[Any]], list[bytes | OSError]] | None":
        """What reads many such photographs together, where that is better than one by one."""

    def read(self, most: int) -> bytes:
        """Read it, or its first bytes; raises OSError."""


Photo: TypeAlias = str | Stored  # the path of a file, or what takes its place


def name_of(photo: Photo) -> str:
    """Return the name that a photograph is known by: a file's absolute path."""
    return os.path.abspath(photo) if isinstance(photo, str) else photo.name


class Source(Protocol):
    """The graph of a task, and what it is given for any sample ids.

    Everything is a function of the ids and of the photographs known to be bad, ``bad``: reasons by `name_of` them.
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
    ) -> list[Photo]:
        """List what the graph reads for the samples."""

    def require_some(self, bad: Mapping[str, str]) -> None:
        """Refuse to go on where nothing is left; raises UserError."""

    def own(self, bad: Mapping[str, str]) -> dict[str, str]:
        """Take those of some bad files that are the source's."""

    def count_bad(self, bad: Mapping[str, str]) -> Iterable["Count"]:
        """Count what cannot be shown among all that the source has, by kind; files of other data sets do not count."""


class Read(Protocol):
    """What reads the files of a batch: `dptmat.pipelines.read_ahead.Reader`."""

    def __call__(self, photos: Iterable[Photo], *, srgb: bool = False) -> list[np.ndarray]: ...


class Count(NamedTuple):
    """How many files of a kind are bad."""

    kind: str  # "photographs", "foregrounds" or "backgrounds"
    bad: int
    total: int


class Photographs(Protocol):
    """Photographs by their numbers: `dptmat.data.index.ImageIndex`, `dptmat.data.shards.ShardIndex`."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Photo: ...
    def take(self, numbers: Sequence[int] | np.ndarray) -> Sequence[Photo]:
        """Return the photographs of some numbers."""

    def occurrences(self, names: Iterable[str]) -> np.ndarray:
        """Count how often each of some photographs is among them, by `name_of` them: int64."""


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
        """Reason of each bad photograph, by `name_of` it."""

    def add(self, name: str, reason: str) -> None:
        """Leave out a further photograph."""
