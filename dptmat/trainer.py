"""The training loop: micro-batches in, steps of the optimiser out, numbers and checkpoints on the way."""

import contextlib
import math

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from dptmat import distributed
from dptmat.errors import UserError


class Trainer:
    """A network with its optimiser, mixed precision and gradient accumulation.

    Args:
        model: The network, on the device of ``ranks``.
        losses: Function of (outputs, batch) that gives a dictionary of scalar losses; their sum is minimised.
        optimizer: Its optimiser.
        learning_rate: Function of the step number.
        ranks: The processes of the run (``distributed.start``).
        seed: Seed of the run; the network's own randomness follows from (seed, step, rank).
        accumulate: Micro-batches per step.
        clip: Largest global norm of the gradient; a larger one is scaled down.
        amp: "bf16", "fp16", "off", or "auto" for bf16 where the GPU has it, fp16 on older ones and off on the CPU.
        compile: Whether to compile the network with ``torch.compile``.
    """

    def __init__(self, model, losses, optimizer, learning_rate, ranks, *, seed, accumulate, clip, amp, compile):
        self.model, self.optimizer, self.learning_rate = model, optimizer, learning_rate
        self._losses, self._ranks, self._seed = losses, ranks, seed
        self._accumulate, self._clip = accumulate, clip
        self.dtype = _precision(amp, ranks.device)
        # float16 alone needs its gradients scaled: bfloat16 has the range of float32.
        self._scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.dtype is torch.float16)
        network = DistributedDataParallel(model) if ranks.count > 1 else model
        self._network = torch.compile(network) if compile else network

    def step(self, number, batches):
        """One step of the optimiser on the next ``accumulate`` micro-batches.

        Returns:
            Dictionary of scalars on the device, means over the micro-batches of this process: ``loss``, its parts by
            name, and ``grad_norm``. Reading them waits for the device; nothing else here does.
        """
        entropy = np.random.SeedSequence([self._seed, number, self._ranks.rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(number)
        self._network.train()
        totals = {}
        for part in range(self._accumulate):
            with self._gradients_stay_here(part < self._accumulate - 1):
                losses = self._backward(next(batches))
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / self._accumulate
        self._scaler.unscale_(self.optimizer)
        totals["grad_norm"] = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return totals

    def _backward(self, batch):
        with torch.autocast(self._ranks.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            outputs = self._network(batch.input)
        parts = self._losses(outputs, batch)
        loss = sum(parts.values())
        self._scaler.scale(loss / self._accumulate).backward()
        return {"loss": loss, **parts}

    def _gradients_stay_here(self, more_to_come):
        """Average gradients among processes with the last micro-batch of a step only."""
        return self._network.no_sync() if more_to_come and self._ranks.count > 1 else contextlib.nullcontext()

    def state_dict(self):
        """What a resumed run needs besides the step: tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty where the run had not been in float16
            self._scaler.load_state_dict(state["scaler"])


def train(trainer, batches, steps, *, start, report, report_every, save, save_every):
    """Train from step ``start`` to ``steps``.

    Args:
        trainer: A ``Trainer``.
        batches: Iterator over what the losses take, at step ``start``.
        steps: Steps of the whole run.
        start: Steps done before.
        report: Called every ``report_every`` steps and before every save with (steps done, mean of each scalar since
            the last call, over all processes).
        save: Called every ``save_every`` steps and after the last with (steps done).

    Raises:
        UserError: The loss is not finite; nothing is saved from then on.
    """
    sums, count = 0, 0
    for number in range(start, steps):
        scalars = trainer.step(number, batches)
        sums, count = sums + torch.stack(list(scalars.values())), count + 1
        done = number + 1
        saves = done % save_every == 0 or done == steps
        # With every save, so that a run resumed there reports what an uninterrupted one does.
        if saves or done % report_every == 0:
            # The one place that waits for the device.
            means = dict(zip(scalars, (distributed.mean(sums) / count).tolist(), strict=True))
            if not math.isfinite(means["loss"]):
                raise UserError(
                    f"the loss is {means['loss']} at step {done} or up to {count - 1} steps before; go on from the "
                    "last checkpoint by --resume auto, or start again with a lower --lr or with --amp off"
                )
            report(done, means)
            sums, count = 0, 0
        if saves:
            save(done)


def _precision(amp, device):
    """dtype that the network computes in."""
    if amp == "auto" and device.type == "cpu" or amp == "off":
        return torch.float32
    if amp == "fp16" and device.type == "cpu":
        raise UserError("--amp fp16 needs a GPU; on the CPU use --amp off or --amp bf16")
    # Volta and Turing only emulate bfloat16.
    native_bf16 = device.type == "cpu" or torch.cuda.get_device_capability(device) >= (8, 0)
    if amp == "bf16" and not native_bf16:
        raise UserError("--amp bf16: this GPU has no bfloat16 units; use --amp fp16")
    return torch.bfloat16 if amp == "bf16" or (amp == "auto" and native_bf16) else torch.float16
