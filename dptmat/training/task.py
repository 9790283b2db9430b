"""What a task has to offer, so that a run can train on it: pre-training and fine-tuning are two."""

from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from dptmat.data.photographs import PhotoIndex
from dptmat.data.sampler import Sampler
from dptmat.pipelines.source import Source
from dptmat.training.quarantine import Quarantine


class Task(Protocol):
    """What is trained on what.

    Ids of samples come from ``sampler``; ``source`` tells what each shows and builds the graph that makes it; what the
    graph gives becomes the network's input and targets by ``batch``.
    """

    index: PhotoIndex  # the photographs; a run lists those that it began with
    sampler: Sampler  # which ids a step has
    micro_batch: int  # samples that one process sends through the network together
    steps: int  # of the whole run
    data_fingerprint: dict[str, int | str]  # equal where the data are; a resumed run compares it
    summary: str  # of the data, for people
    preview_rows: int  # samples in a contact sheet

    @property
    def source(self) -> Source:
        """What the samples of a step show, and the graph that makes it."""

    def batch(self, outputs: Any) -> Any:
        """Make the network's input and targets of the graph's outputs: something with ``input``, [N, C, H, W].

        What a call has given may be written over by the next one.
        """

    def losses(self, outputs: dict[str, Tensor], batch: Any, step: int) -> dict[str, Tensor]:
        """Compute the losses of the network's outputs, by name; their sum is minimized."""

    def preview(self, quarantine: Quarantine) -> np.ndarray:
        """Draw what the network sees in the first samples: uint8 [H, W, 3] RGB."""

    def validate(self, model: nn.Module, step: int) -> dict[str, float] | None:
        """Score the network after so many steps; None where there is nothing to score by.

        All processes call it together, and the main one returns the scores: ``sad``, ``mse``, ``grad``, ``conn`` and
        perhaps others.
        """

    def finish(self) -> None:
        """Do what comes after the last step."""
