"""Small networks with their trainers, and batches for them."""

import math

import torch

from dptmat.kernels import synthesize
from dptmat.losses import matting_losses
from dptmat.training.distributed import Process
from dptmat.training.optim import adamw
from dptmat.training.trainer import Trainer

CPU = Process(0, 1, 1, torch.device("cpu"))


class Pointwise(torch.nn.Module):
    """A network without batch statistics: a 1x1 convolution and a dropout that shows the random state."""

    def __init__(self, dropout):
        super().__init__()
        self.conv, self.dropout = torch.nn.Conv2d(6, 3, 1), torch.nn.Dropout(dropout)

    def forward(self, x):
        alphas = torch.sigmoid(self.dropout(self.conv(x))).float()
        return {f"alpha_os{stride}": alphas[:, i : i + 1] for i, stride in enumerate((1, 4, 8))}


def batch_of(ids):
    views = torch.randint(
        0, 256, (len(ids), 64, 64, 3), generator=torch.Generator().manual_seed(ids[0]), dtype=torch.uint8
    )
    return synthesize(views, torch.tensor(ids), 0)


def make_trainer(accumulate=1, clip=100.0, clip_factor=math.inf, amp="off", dropout=0.0, lr=0.1):
    torch.manual_seed(0)
    model = Pointwise(dropout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, fused=True)

    def losses(outputs, batch, step):
        return matting_losses(outputs, batch, ["l1", "comp"])

    return Trainer(
        model, losses, optimizer, lambda step: lr, CPU,
        seed=3, accumulate=accumulate, clip=clip, clip_factor=clip_factor, amp=amp, compile=False,
    )  # fmt: skip


class Normalized(Pointwise):
    """The same with batch norm, whose running means a bad batch would spoil."""

    def __init__(self):
        super().__init__(0.0)
        self.norm = torch.nn.BatchNorm2d(6)

    def forward(self, x):
        return super().forward(self.norm(x))


def spoil(batch, where):
    """Make the loss (by the input), or only the gradient (by a loss of infinite slope), not finite."""
    getattr(batch, where).view(-1)[5] = math.inf if where == "contrast" else math.nan
    return batch


def state_of(trainer):
    return [tensor.clone() for tensor in trainer.model.state_dict().values()] + [
        tensor.clone() for state in trainer.optimizer.state.values() for tensor in state.values()
    ]


def make_normalized(accumulate=1, process=CPU):
    torch.manual_seed(0)
    model = Normalized()
    return Trainer(
        model, lambda outputs, batch, step: matting_losses(outputs, batch, ["l1", "comp"]),
        adamw(model, 0.05, (0.9, 0.95)), lambda step: 0.01, process,
        seed=3, accumulate=accumulate, clip=1.0, clip_factor=2.0, amp="off", compile=False,
    )  # fmt: skip
