"""One step of training: micro-batches in, a step of the optimizer out, or nothing changed."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dptmat.device import choose_dtype
from dptmat.models.layers import iterate_spectral_norms
from dptmat.training.compile import compile_blocks
from dptmat.training.distributed import Process
from dptmat.training.optim import clip_gradients


class Trainer:
    """A network with its optimizer, mixed precision and gradient accumulation.

    Args:
        model: The network, on the device of ``process``.
        losses: Function of (outputs, batch, step) that gives a dictionary of scalar losses; their sum is minimised.
        optimizer: Its optimizer, a fused one: these leave a step out by ``found_inf`` without waiting for the device.
        learning_rate: Function of the step number.
        process: This one among those of the run (``distributed.start``).
        seed: Seed of the run; the network's own randomness follows from (seed, step, micro-batch).
        accumulate: Micro-batches per step, over which the gradients are accumulated.
        clip: Largest global norm of the gradient; a larger one is scaled down.
        clip_factor: Likewise, as a multiple of the running mean of the norms.
        amp: "bf16", "fp16", "off", or "auto" for bf16 where the GPU has it, fp16 on older ones and off on the CPU.
        compile: Whether to compile the blocks of the network with ``torch.compile``.

    Attributes:
        is_whole: Whether the state is that of a number of whole steps: not where an error came amid the update.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Callable[[dict[str, Tensor], Any, int], dict[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        learning_rate: Callable[[int], float],
        process: Process,
        *,
        seed: int,
        accumulate: int,
        clip: float,
        clip_factor: float,
        amp: str,
        compile: bool,
    ) -> None:
        self.model, self.optimizer, self.learning_rate = model, optimizer, learning_rate
        self._losses, self._process, self._seed = losses, process, seed
        self._accumulate, self._clip, self._clip_factor = accumulate, clip, clip_factor
        self._running_norm = torch.zeros((), device=process.device)
        self._buffers = Buffers(model)
        self.is_whole = True
        self.dtype = choose_dtype(amp, process.device)
        # float16 alone needs its gradients scaled: bfloat16 has the range of float32.
        self._scaler = torch.amp.GradScaler(process.device.type, enabled=self.dtype is torch.float16)
        if compile:
            compile_blocks(model)
        # No network trains with its running means: each process keeps its own, and the first one's are saved.
        distributed = process.world_size > 1
        self._network: Any = DistributedDataParallel(model, broadcast_buffers=False) if distributed else model

    def step(self, number: int, batches: Iterator[Any]) -> tuple[dict[str, Tensor], Tensor]:
        """Do one step of the optimizer on the next ``accumulate`` micro-batches.

        A gradient that is not finite, as that of a loss that is not, leaves everything as it was before the step, in
        all processes alike. So does an exception, such as for a lack of memory.

        Returns:
            Dictionary of scalars on the device, means over the micro-batches of this process: ``loss``, its parts by
            name, and ``grad_norm``; and bool [1 + accumulate]: whether the step was left out, and which micro-batches
            of this process had a loss that is not finite. Reading them waits for the device; nothing else here does
            but PyTorch's synchronized batch norm.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(number) * group.get("lr_scale", 1.0)
        self._network.train()
        self._buffers.note()
        try:
            totals, lost = self._accumulate_gradients(number, batches)
        except BaseException:
            self._buffers.put_back()
            self.optimizer.zero_grad(set_to_none=True)
            raise
        self.is_whole = False
        self._scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.model.parameters(), self._clip, self._clip_factor, self._running_norm)
        skipped = ~norm.isfinite()
        # What fused optimizers look at. The scaler's own step would put its finding there, which says nothing of finite
        # gradients whose norm is not.
        self.optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self._scaler.update()
        self._buffers.put_back_if(skipped)
        self.optimizer.zero_grad(set_to_none=True)
        self.is_whole = True
        return {**totals, "grad_norm": norm}, torch.stack([skipped, *lost])

    def _accumulate_gradients(self, number: int, batches: Iterator[Any]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Sum the scalars over the step's micro-batches, and tell which had a loss that is not finite."""
        totals: dict[str, Tensor] = {}
        lost = []
        for part in range(self._accumulate):
            iterate_spectral_norms(self.model, part == 0)  # the weights stay, and so do their norms
            # By the micro-batch's place in the global batch, whichever process has it.
            entropy = np.random.SeedSequence([self._seed, number, self._process.rank * self._accumulate + part])
            batch = next(batches)
            torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
            with self._gradients_stay_here(part < self._accumulate - 1):
                losses = self._backward(batch, number)
            lost.append(~losses["loss"].detach().isfinite())
            for name, value in losses.items():
                part_of_mean = value.detach() / self._accumulate
                totals[name] = totals[name] + part_of_mean if name in totals else part_of_mean
        return totals, lost

    def _backward(self, batch: Any, number: int) -> dict[str, Tensor]:
        with torch.autocast(self._process.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            outputs = self._network(batch.input)
        parts = self._losses(outputs, batch, number)
        loss = functools.reduce(torch.add, parts.values())
        # An infinite loss may have a finite gradient. Processes see each other's gradients only: let it be seen there.
        weight = torch.where(loss.detach().isfinite(), 1 / self._accumulate, math.nan)
        self._scaler.scale(loss * weight).backward()
        return {"loss": loss, **parts}

    def _gradients_stay_here(self, more_to_come: bool) -> contextlib.AbstractContextManager:
        """Average gradients among processes with the last micro-batch of a step only."""
        return self._network.no_sync() if more_to_come and self._process.world_size > 1 else contextlib.nullcontext()

    @property
    def overflows_allowed(self) -> int:
        """Number of skipped steps in a row that mean no harm: float16 may halve its scale from 2**16 down to 2**-16."""
        return 32 if self._scaler.is_enabled() else 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the step: tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "running_norm": self._running_norm,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._running_norm.copy_(state["running_norm"])
        if state["scaler"]:  # empty where the run had not been in float16
            self._scaler.load_state_dict(state["scaler"])


class Buffers:
    """The buffers of a network, such as running means of batch norm, as they were before a step.

    They are copied in two or three launches, since there can be hundreds of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self._groups: list[tuple[list[Tensor], Tensor, list[Tensor]]] = []
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
        for buffers in by_dtype.values():
            former = torch.cat([buffer.flatten() for buffer in buffers])
            parts = former.split([buffer.numel() for buffer in buffers])
            self._groups.append((buffers, former, [p.view_as(b) for p, b in zip(parts, buffers, strict=True)]))

    @torch.no_grad()
    def note(self) -> None:
        for buffers, _, parts in self._groups:
            torch._foreach_copy_(parts, buffers)

    @torch.no_grad()
    def put_back(self) -> None:
        for buffers, _, parts in self._groups:
            torch._foreach_copy_(buffers, parts)

    @torch.no_grad()
    def put_back_if(
        self,
        condition: Tensor,  # bool [] on their device
    ) -> None:
        """Put them back where the condition holds."""
        for buffers, former, _ in self._groups:
            torch.where(condition, former, torch.cat([buffer.flatten() for buffer in buffers]), out=former)
        self.put_back()
