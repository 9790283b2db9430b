"""The training loop: micro-batches in, steps of the optimiser out, numbers and checkpoints on the way."""

import contextlib
import math

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from dptmat.device import choose_dtype
from dptmat.errors import UserError
from dptmat.models.layers import iterate_spectral_norms
from dptmat.training import distributed
from dptmat.training.optim import clip_gradients


class Trainer:
    """A network with its optimiser, mixed precision and gradient accumulation.

    Args:
        model: The network, on the device of ``ranks``.
        losses: Function of (outputs, batch, step) that gives a dictionary of scalar losses; their sum is minimised.
        optimizer: Its optimiser, a fused one: these leave a step out by ``found_inf`` without waiting for the device.
        learning_rate: Function of the step number.
        process: The processes of the run (``distributed.start``).
        seed: Seed of the run; the network's own randomness follows from (seed, step, micro-batch).
        accumulate: Micro-batches per step.
        clip: Largest global norm of the gradient; a larger one is scaled down.
        clip_factor: Likewise, as a multiple of the running mean of the norms.
        amp: "bf16", "fp16", "off", or "auto" for bf16 where the GPU has it, fp16 on older ones and off on the CPU.
        compile: Whether to compile the network with ``torch.compile``.
    """

    def __init__(
        self, model, losses, optimizer, learning_rate, process, *, seed, accumulate, clip, clip_factor, amp, compile
    ):
        self.model, self.optimizer, self.learning_rate = model, optimizer, learning_rate
        self._losses, self._process, self._seed = losses, process, seed
        self._accumulate, self._clip, self._clip_factor = accumulate, clip, clip_factor
        self._running_norm = torch.zeros((), device=process.device)
        self._buffers = _Buffers(model)
        self.dtype = choose_dtype(amp, process.device)
        # float16 alone needs its gradients scaled: bfloat16 has the range of float32.
        self._scaler = torch.amp.GradScaler(process.device.type, enabled=self.dtype is torch.float16)
        network = DistributedDataParallel(model) if process.world_size > 1 else model
        self._network = torch.compile(network) if compile else network

    def step(self, number, batches):
        """One step of the optimiser on the next ``accumulate`` micro-batches.

        A gradient that is not finite, as that of a loss that is not, leaves everything as it was before the step, in
        all processes alike. So does an exception, such as for a lack of memory.

        Returns:
            Dictionary of scalars on the device, means over the micro-batches of this process: ``loss``, its parts by
            name, and ``grad_norm``; and bool [1 + accumulate]: whether the step was left out, and which micro-batches
            of this process had a loss that is not finite. Reading them waits for the device; nothing else here does.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(number)
        self._network.train()
        self._buffers.note()
        try:
            totals, lost = self._accumulate_gradients(number, batches)
        except BaseException:
            self._buffers.put_back()
            self.optimizer.zero_grad(set_to_none=True)
            raise
        self._scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.model.parameters(), self._clip, self._clip_factor, self._running_norm)
        skipped = ~norm.isfinite()
        self.optimizer.found_inf = skipped.float()  # what fused optimisers look at; the scaler sets it by itself
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self._buffers.put_back_if(skipped)
        self.optimizer.zero_grad(set_to_none=True)
        return {**totals, "grad_norm": norm}, torch.stack([skipped, *lost])

    def _accumulate_gradients(self, number, batches):
        """Sums of the scalars over the step's micro-batches, and which of them had a loss that is not finite."""
        totals, lost = {}, []
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
                totals[name] = totals.get(name, 0) + value.detach() / self._accumulate
        return totals, lost

    def _backward(self, batch, number):
        with torch.autocast(self._process.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            outputs = self._network(batch.input)
        parts = self._losses(outputs, batch, number)
        loss = sum(parts.values())
        # An infinite loss may have a finite gradient. Processes see each other's gradients only: let it be seen there.
        share = torch.where(loss.detach().isfinite(), 1 / self._accumulate, math.nan)
        self._scaler.scale(loss * share).backward()
        return {"loss": loss, **parts}

    def _gradients_stay_here(self, more_to_come):
        """Average gradients among processes with the last micro-batch of a step only."""
        return self._network.no_sync() if more_to_come and self._process.world_size > 1 else contextlib.nullcontext()

    @property
    def overflows_allowed(self):
        """Steps left out in a row that mean no harm: float16 may halve its scale from 2**16 down to 2**-16."""
        return 32 if self._scaler.is_enabled() else 0

    def state_dict(self):
        """What a resumed run needs besides the step: tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "running_norm": self._running_norm,
        }

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._running_norm.copy_(state["running_norm"])
        if state["scaler"]:  # empty where the run had not been in float16
            self._scaler.load_state_dict(state["scaler"])


class _Buffers:
    """The buffers of a network, such as running means of batch norm, as they were before a step.

    They are copied in two or three launches, since there can be hundreds of them.
    """

    def __init__(self, model):
        self._groups = []
        by_dtype = {}
        for buffer in model.buffers():
            by_dtype.setdefault(buffer.dtype, []).append(buffer)
        for buffers in by_dtype.values():
            former = torch.cat([buffer.flatten() for buffer in buffers])
            parts = former.split([buffer.numel() for buffer in buffers])
            self._groups.append((buffers, former, [p.view_as(b) for p, b in zip(parts, buffers, strict=True)]))

    @torch.no_grad()
    def note(self):
        for buffers, _, parts in self._groups:
            torch._foreach_copy_(parts, buffers)

    @torch.no_grad()
    def put_back(self):
        for buffers, _, parts in self._groups:
            torch._foreach_copy_(buffers, parts)

    @torch.no_grad()
    def put_back_if(self, condition):
        """Put them back where ``condition``, bool [] on their device, holds."""
        for buffers, former, _ in self._groups:
            torch.where(condition, former, torch.cat([buffer.flatten() for buffer in buffers]), out=former)
        self.put_back()


def train(
    trainer, batches, steps, *, start, report, report_every, save, save_every, max_nonfinite=10, stop=lambda done: ""
):
    """Train from step ``start`` to ``steps``, or until there is a reason to stop.

    Args:
        trainer: A ``Trainer``.
        batches: Iterator over what the losses take, at step ``start``.
        steps: Steps of the whole run.
        start: Steps done before.
        report: Called every ``report_every`` steps and before every save with (steps done, mean of each scalar since
            the last call, over all processes and the steps that were not left out, dictionary of the steps left out:
            of each the numbers of this process's micro-batches whose loss is not finite).
        save: Called every ``save_every`` steps and after the last with (steps done, "" or why the run stops here).
        max_nonfinite: Steps left out in a row at which the run stops.
        stop: Called after every step with (steps done); the reason to stop there or "", the same in all processes.

    Returns:
        Steps done, and "" or why the run stopped there.

    Raises:
        UserError: Too many steps in a row were left out; or, from ``batches``, there is no next one. The state is
            saved before.
    """
    done, reason, window = start, "", _Window(start)
    while done < steps and not reason:
        try:
            window.add(*trainer.step(done, batches))
        except (UserError, torch.OutOfMemoryError) as error:  # in this process alone: nothing of this step is kept
            if done > start:
                save(done, str(error))
            raise
        done += 1
        reason = stop(done)
        saves = done % save_every == 0 or done == steps
        # With every save, so that a run resumed there reports what an uninterrupted one does.
        if reason or saves or done % report_every == 0:
            means, skipped = window.read()  # the one place that waits for the device
            report(done, means, skipped)
            if window.longest >= max_nonfinite + trainer.overflows_allowed:
                save(done, "not finite")
                raise UserError(
                    f"{window.longest} steps in a row up to step {done} had a loss or a gradient that is not finite "
                    "and were left out, so the network is as before them; start again with a lower --lr or with "
                    "--amp off, or look at the samples named above"
                )
        if reason or saves:
            save(done, reason)
    return done, reason


class _Window:
    """What the steps since the last report gave, on the device.

    Attributes:
        longest: Most steps in a row that were left out, among those that were read last.
    """

    def __init__(self, start):
        self._first, self._row = start, 0
        self._clear()

    def _clear(self):
        self._sums, self._flags, self.longest = 0, [], 0

    def add(self, scalars, flags):
        self._names = list(scalars)
        self._sums = self._sums + torch.where(flags[0], 0, torch.stack(list(scalars.values())))
        self._flags.append(flags)

    def read(self):
        """Means of the scalars, and the micro-batches of each step left out whose loss is not finite; waits."""
        flags, sums = torch.stack(self._flags).tolist(), distributed.mean(self._sums)
        good = sum(not skipped for skipped, *_ in flags)
        means = dict(zip(self._names, (sums / good if good else sums * math.nan).tolist(), strict=True))
        self._clear()
        left_out = {}
        for step, (skipped, *parts) in enumerate(flags, start=self._first):
            self._row = self._row + 1 if skipped else 0
            self.longest = max(self.longest, self._row)
            if skipped:
                left_out[step] = [part for part, lost in enumerate(parts) if lost]
        self._first += len(flags)
        return means, left_out
