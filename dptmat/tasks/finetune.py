"""Fine-tuning: foregrounds with real mattes over photographs in, a matting network that works out.

Source: the recipes of MG Matting (Yu et al., CVPR 2021) and MatteFormer (Park et al., CVPR 2022), with the losses in
the unknown region alone as in DPT (Li et al., WACV 2024).
"""

import contextlib
import dataclasses
import logging
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dptmat.config.finetune import FinetuneConfig
from dptmat.config.settings import take_settings
from dptmat.contact_sheets import samples_sheet
from dptmat.data.foregrounds import read_foregrounds
from dptmat.data.matte_batch import MatteBatch, make_matte_batch
from dptmat.data.photographs import open_photographs
from dptmat.data.training_sets import choose_foregrounds
from dptmat.defaults import TRIMAP_SOURCES
from dptmat.errors import UserError
from dptmat.files import cause, write_whole
from dptmat.inference import MATTEFORMER_SIDE
from dptmat.kernels.philox import Stream, words
from dptmat.losses import matting_losses, refine
from dptmat.pipelines.batches import Layers
from dptmat.pipelines.crop_window import REFINE_OS1, REFINE_OS4, Recipe
from dptmat.pipelines.finetune import FinetuneSource
from dptmat.pipelines.source import name_of
from dptmat.tasks.evaluate import evaluate, table
from dptmat.tasks.validation import Validation
from dptmat.training import distributed
from dptmat.training.build import choose_augmentation, choose_micro_batch, fingerprint, make_loader, make_sampler
from dptmat.training.distributed import Process
from dptmat.training.quarantine import Quarantine, name_bad
from dptmat.training.resume import list_begun_with
from dptmat.training.run import Run, joined_processes
from dptmat.weights.load import load_network
from dptmat.weights.read import read

_logger = logging.getLogger(__name__)

BEST = "best.pt"  # in checkpoints/: the network with the least SAD so far
_MICRO_BATCH = 10  # samples that pass through the network at once, unless asked otherwise: the published batch of a GPU


def finetune(settings: FinetuneConfig | None = None, **options: Any) -> Path:
    """Fine-tune a matting network on foregrounds with real mattes; see `dptmat.training.run.Run`.

    With images to validate by, it also writes ``checkpoints/best.pt``, the network with the least SAD, and at the end
    its ``evaluation/``, as `dptmat.tasks.evaluate.evaluate` does.

    Args:
        settings: All settings; or
        options: Those that differ from the defaults, by name: ``finetune(fg="fg", alpha="alpha", bg="coco", ...)``.

    Returns:
        Path of the last checkpoint.

    Raises:
        UserError, OSError: Something that the user can mend, in one sentence.
        TypeError: Settings are given in neither or in both ways.
    """
    given = take_settings(FinetuneConfig, settings, options, "finetune")
    with joined_processes(given) as process:
        task = distributed.on_all_ranks(lambda: Finetuning(given, process))
        return Run(task, given, process).run()


class Finetuning:
    """What is trained on what, a `Task`: composites of foregrounds with their mattes over photographs.

    Args:
        settings: Of the run.
        process: This one among those of the run.

    Raises:
        UserError: Files are missing or cannot be read, or the batch does not divide among the processes.
    """

    preview_rows = 4

    def __init__(self, settings: FinetuneConfig, process: Process) -> None:
        fg, alpha = choose_foregrounds(*(given or None for given in (settings.data, settings.fg, settings.alpha)))
        foregrounds, empty = read_foregrounds(fg, alpha, settings.out)
        if process.is_main:
            for path, reason in empty:
                name_bad(str(path), reason)
        begun_with = list_begun_with(settings)
        self.index = backgrounds = open_photographs(settings.bg, "bg", begun_with, leave_out=settings.out)
        backgrounds.require_some_file(f"`bg` {settings.bg}")
        self._validation = Validation(settings, process)
        self._settings, self._process = settings, process
        self._best = Path(settings.out) / "checkpoints" / BEST
        self._best_sad = _sad_of(self._best, self._validation.trimaps) if settings.resume else float("inf")
        self.sampler = make_sampler(settings, process, backgrounds)
        # MG Matting normalises its pooled features over the batch alone.
        smallest = 2 if settings.model == "mgmatting" else 1
        self.micro_batch = choose_micro_batch(settings, process.world_size, smallest, _MICRO_BATCH)
        self.steps = settings.steps
        names = ((Path(name_of(f.fg)).name, Path(name_of(f.alpha)).name) for f in foregrounds)
        files = "\n".join(f"{a}\t{b}\t{f.width}\t{f.height}" for (a, b), f in zip(names, foregrounds, strict=True))
        digest = blake2b(files.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        photographs = fingerprint(backgrounds, self.sampler)
        self.data_fingerprint = {**photographs, "digest": f"{photographs['digest']}{digest}"}
        self.summary = f"{len(foregrounds)} foregrounds over {len(backgrounds)} backgrounds"
        self._recipe = Recipe(
            choose_augmentation(settings),
            combine=settings.combine,
            squeeze=settings.squeeze,
            interpolation=settings.interpolation,
            trimap_width=settings.trimap_width,
            hue=round(settings.hue),
        )
        self.source = FinetuneSource(foregrounds, backgrounds, self.sampler, self._recipe, settings.size)

    def batch(self, outputs: Layers) -> MatteBatch:
        """Make the network's input and targets of one micro-batch."""
        batch = make_matte_batch(outputs, self._recipe)
        return batch if self._settings.trimap else dataclasses.replace(batch, input=batch.input[:, :3])

    def losses(self, outputs: dict[str, Tensor], batch: MatteBatch, step: int) -> dict[str, Tensor]:
        """Compute the losses of the network's outputs, by name.

        Finer alphas are put in place of coarser ones as the phase of the run says.

        Until the end of the warm-up each output counts in the unknown region; then, up to three times as many steps, by
        a coin for each step, and from then on always, finer alphas are put in place where coarser ones are uncertain,
        and count there.
        """
        settings, regions = self._settings, None
        if "alpha_os8" in outputs:
            unknown = batch.trimap == 1
            regions = dict.fromkeys(outputs, unknown)
            if self._refines(step):
                widest = REFINE_OS4, REFINE_OS1
                side = MATTEFORMER_SIDE if settings.model.startswith("matteformer") else None
                outputs, regions = refine(outputs, batch.widths, widest, side)
                if not settings.whole:
                    regions = {key: region & unknown for key, region in regions.items()}
            elif settings.whole:
                regions["alpha_os8"] = torch.ones_like(unknown)
        return matting_losses(outputs, batch, settings.losses.split(","), regions, settings.compile)

    def preview(self, quarantine: Quarantine) -> np.ndarray:
        """Draw what the network sees in the first samples: uint8 [H, W, 3] RGB."""
        with contextlib.closing(make_loader(self, self._settings, self._process, 0, quarantine)) as loader:
            layers = next(loader)
        return samples_sheet(self.batch(layers), self.preview_rows)

    def validate(self, model: nn.Module, step: int) -> dict[str, float] | None:
        """Score the network on the validation images, if there are any, and keep the best one.

        Raises:
            UserError: None of the images can be scored, at the first time.
        """
        if not self._validation.cases:
            return None
        scores = self._validation.score(model)
        if self._process.is_main and scores["sad"] < self._best_sad:
            self._save_best(model, step, scores)
        return scores

    def _save_best(self, model: nn.Module, step: int, scores: dict[str, float]) -> None:
        """Write the best network so far; where that fails, the run goes on, and the next better one replaces it."""
        content = {
            "model": model.state_dict(), "config": dataclasses.asdict(self._settings), "step": step, "scores": scores,
        }  # fmt: skip
        try:
            self._best.parent.mkdir(exist_ok=True)
            write_whole(self._best, lambda file: torch.save(content, file))
            self._best_sad = scores["sad"]
        except (OSError, RuntimeError) as error:
            before = f"that of SAD {self._best_sad:.2f}" if self._best.exists() else "none"
            _logger.warning(
                "%s cannot be written: %s; make room; until then it is %s", self._best, cause(error), before
            )

    def finish(self) -> None:
        """Write and show the evaluation of the best network.

        Raises:
            UserError: There is no best network.
        """
        if not (self._validation.cases and self._process.is_main):
            return
        if not self._best.exists():
            raise UserError(
                f"there is no {self._best} to evaluate: none of the validation images could be scored, or it could not "
                "be written; the messages above say why"
            )
        out = Path(self._settings.out) / "evaluation"
        network, _ = load_network(self._best, self._process.device)
        evaluation = evaluate(
            self._validation.cases, network, out=out, trimap=self._validation.trimaps, seed=self._settings.seed,
            checkpoint=self._best,
        )  # fmt: skip
        _logger.info("best        %s", self._best)
        _logger.info("evaluation  %s", out)
        _logger.info("%s", table(evaluation))

    def _refines(self, step: int) -> bool:
        """Tell whether the losses of a step see fused alphas."""
        warmup = round(self._settings.warmup * self.steps)
        if warmup <= step < 3 * warmup:
            return bool(words(self._settings.seed, Stream.REFINEMENT, step, 1)[0, 0, 0] % 2)
        return step >= warmup


def _sad_of(path: Path, trimaps: str) -> float:
    """Read the SAD of the best network so far, infinite where there is none or its trimaps were of another source."""
    if not path.exists():
        return float("inf")
    best = read(path)
    given = best["config"].get("val_trimap", "")
    former = given if given in TRIMAP_SOURCES else "files"
    if former != trimaps:
        _logger.warning(
            "%s was judged in another region (trimaps: %s, now %s): its SAD is not compared, and the best network is "
            "chosen anew", path, former, trimaps,
        )  # fmt: skip
        return float("inf")
    return best["scores"]["sad"]
