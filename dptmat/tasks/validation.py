"""Validation while a network trains: its scores on images whose alphas are known, which change nothing of the run."""

import math

from torch import nn

from dptmat.config.run import RunConfig
from dptmat.data.cases import Case, pair
from dptmat.defaults import TRIMAP_SOURCES
from dptmat.errors import UserError
from dptmat.tasks.evaluate import log_exception, mean_scores
from dptmat.tasks.score import LeftOut, Score, score_network
from dptmat.training import distributed
from dptmat.training.distributed import Process


class Validation:
    """The images that a run is validated by.

    Args:
        settings: Of the run; without ``val_image`` there are no images.
        process: This one among those of the run; each scores its part of the images.

    Attributes:
        cases: The images.
        trimaps: Where their trimaps are from: "files", or how they are made.

    Raises:
        UserError: Files are missing, or have no partners.
    """

    def __init__(self, settings: RunConfig, process: Process) -> None:
        made = settings.val_trimap in TRIMAP_SOURCES
        self.trimaps = settings.val_trimap if made else "files"
        self.cases: list[Case] = []
        if settings.val_image:
            self.cases = pair(
                {"image": "val_image", "alpha": "val_alpha", "trimap": "val_trimap"}, leave_out=settings.out,
                image=settings.val_image, alpha=settings.val_alpha, trimap=None if made else settings.val_trimap,
            )  # fmt: skip
        self._seed = settings.seed
        self._own = self.cases[process.rank :: process.world_size]
        self._scored: list[Case] = []  # of these, at the last time
        self._has_scored = False

    def score(self, model: nn.Module) -> dict[str, float]:
        """Score a network on the images; all processes call it together.

        Images that cannot be scored are named at the first time: the same are left out every time.

        Returns:
            Their mean scores, by `dptmat.defaults.ERRORS`.

        Raises:
            UserError: None of the images can be scored, at the first time.
        """
        distributed.broadcast_(model.buffers())  # each process has its own running statistics of batch norms
        results = self._score(self._own, model, self.trimaps)
        for result in () if self._has_scored else results:
            log_exception(result)
        left_out = {result.name for result in results if isinstance(result, LeftOut)}
        self._scored = [case for case in self._own if case.name not in left_out]
        scores = _mean(results)
        if math.isnan(scores["sad"]) and not self._has_scored:
            raise UserError(
                "none of the validation images can be scored; the messages above say why: mend `val_image`, "
                "`val_trimap` or `val_alpha`, or leave them out"
            )
        self._has_scored = True
        return scores

    def score_without_trimaps(self, model: nn.Module) -> dict[str, float]:
        """Score a network that is shown nothing of the trimaps on the whole images, those that ``score`` has scored."""
        return _mean(self._score(self._scored, model, "all-unknown"))

    def _score(self, cases: list[Case], model: nn.Module, trimaps: str) -> list[Score | LeftOut]:
        return list(score_network(cases, model, trimap=trimaps, seed=self._seed))


def _mean(results: list[Score | LeftOut]) -> dict[str, float]:
    """Average the scores of all processes."""
    images = [result for result in results if isinstance(result, Score)]
    return mean_scores([score for part in distributed.gather(images) for score in part])
