"""One step of training: gradient accumulation, mixed precision, clipping, and the loop's reports."""

import pytest
import torch

from dptmat.distributed import Ranks
from dptmat.errors import UserError
from dptmat.kernels import synthesize
from dptmat.losses import matting_losses
from dptmat.trainer import Trainer, train

CPU = Ranks(0, 1, 1, torch.device("cpu"))


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


def make_trainer(accumulate=1, clip=100.0, amp="off", dropout=0.0, lr=0.1):
    torch.manual_seed(0)
    model = Pointwise(dropout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return Trainer(
        model, lambda outputs, batch: matting_losses(outputs, batch, ["l1", "comp"]), optimizer, lambda step: lr, CPU,
        seed=3, accumulate=accumulate, clip=clip, amp=amp, compile=False,
    )  # fmt: skip


def weights(trainer):
    return torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])


def test_two_micro_batches_make_the_mean_of_their_gradients():
    first, second = batch_of([0, 1]), batch_of([2, 3])
    together = make_trainer(accumulate=2)
    before = weights(together)
    scalars = together.step(0, iter([first, second]))
    moves, losses = [], []
    for batch in (first, second):
        alone = make_trainer()
        losses.append(alone.step(0, iter([batch]))["loss"].item())
        moves.append(weights(alone) - before)
    assert scalars["loss"].item() == pytest.approx(sum(losses) / 2)
    assert losses[0] != losses[1]
    assert torch.allclose(weights(together) - before, (moves[0] + moves[1]) / 2, atol=1e-7)
    assert scalars["loss"].item() == pytest.approx(scalars["l1"].item() + scalars["comp"].item())


def test_a_large_gradient_is_scaled_to_the_limit():
    free, clipped = make_trainer(), make_trainer(clip=1e-3)
    before = weights(free)
    norm = free.step(0, iter([batch_of([0, 1])]))["grad_norm"].item()
    clipped.step(0, iter([batch_of([0, 1])]))
    assert norm > 1e-2
    assert (weights(clipped) - before).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)
    assert (weights(free) - before).norm().item() == pytest.approx(0.1 * norm, rel=1e-3)


def test_the_networks_randomness_follows_from_seed_and_step():
    batch = batch_of([0, 1])

    def loss(step, disturb):
        trainer = make_trainer(dropout=0.5)
        torch.rand(disturb)
        return trainer.step(step, iter([batch]))["loss"].item()

    assert loss(4, disturb=1) == loss(4, disturb=1000)
    assert loss(4, disturb=1) != loss(5, disturb=1)


def test_bfloat16_computes_in_it_and_keeps_float32_weights():
    trainer = make_trainer(amp="bf16")
    seen = []
    trainer.model.conv.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    loss = trainer.step(0, iter([batch_of([0, 1])]))["loss"]
    assert seen == [torch.bfloat16]
    assert loss.dtype is torch.float32
    assert all(p.dtype is torch.float32 for p in trainer.model.parameters())


def test_half_precision_on_the_cpu_is_refused():
    with pytest.raises(UserError, match="--amp fp16 needs a GPU"):
        make_trainer(amp="fp16")


def test_the_loop_reports_means_and_saves_at_the_end():
    trainer = make_trainer(lr=0.0)  # the weights stay, so that every step's loss can be computed apart
    batches = [batch_of([2 * i, 2 * i + 1]) for i in range(5)]
    expected = [make_trainer(lr=0.0).step(0, iter([batch]))["loss"].item() for batch in batches]
    reports, saves = [], []
    train(
        trainer, iter(batches[1:]), 5, start=1, report_every=4, save_every=3,
        report=lambda done, scalars: reports.append((done, scalars["loss"])), save=saves.append,
    )  # fmt: skip
    assert [done for done, _ in reports] == [3, 4, 5]
    assert [loss for _, loss in reports] == pytest.approx([sum(expected[1:3]) / 2, *expected[3:]], rel=1e-6)
    assert saves == [3, 5]


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved():
    trainer, reports, saves = make_trainer(), [], []
    batches = [batch_of([2 * i, 2 * i + 1]) for i in range(5)]
    batches[3].input.fill_(float("nan"))
    with pytest.raises(UserError, match="the loss is nan at step 4 or up to 0 steps before.*lower --lr"):
        train(
            trainer, iter(batches), 5, start=0, report_every=2, save_every=1,
            report=lambda done, scalars: reports.append(done), save=saves.append,
        )  # fmt: skip
    assert reports == [1, 2, 3]
    assert saves == [1, 2, 3]
