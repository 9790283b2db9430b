"""One step of training: gradient accumulation, mixed precision, clipping, and the loop's reports."""

import math

import pytest
import torch

from dptmat.errors import UserError
from dptmat.kernels import synthesize
from dptmat.losses import matting_losses
from dptmat.training.distributed import Process
from dptmat.training.optim import adamw
from dptmat.training.trainer import Trainer, train

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


def weights(trainer):
    return torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])


def test_two_micro_batches_make_the_mean_of_their_gradients():
    first, second = batch_of([0, 1]), batch_of([2, 3])
    together = make_trainer(accumulate=2)
    before = weights(together)
    scalars, _ = together.step(0, iter([first, second]))
    moves, losses = [], []
    for batch in (first, second):
        alone = make_trainer()
        losses.append(alone.step(0, iter([batch]))[0]["loss"].item())
        moves.append(weights(alone) - before)
    assert scalars["loss"].item() == pytest.approx(sum(losses) / 2)
    assert losses[0] != losses[1]
    assert torch.allclose(weights(together) - before, (moves[0] + moves[1]) / 2, atol=1e-7)
    assert scalars["loss"].item() == pytest.approx(scalars["l1"].item() + scalars["comp"].item())


def test_a_large_gradient_is_scaled_to_the_limit():
    free, clipped = make_trainer(), make_trainer(clip=1e-3)
    before = weights(free)
    norm = free.step(0, iter([batch_of([0, 1])]))[0]["grad_norm"].item()
    clipped.step(0, iter([batch_of([0, 1])]))
    assert norm > 1e-2
    assert (weights(clipped) - before).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)
    assert (weights(free) - before).norm().item() == pytest.approx(0.1 * norm, rel=1e-3)


def test_the_networks_randomness_follows_from_seed_and_step():
    batch = batch_of([0, 1])

    def loss(step, disturb):
        trainer = make_trainer(dropout=0.5)
        torch.rand(disturb)
        return trainer.step(step, iter([batch]))[0]["loss"].item()

    assert loss(4, disturb=1) == loss(4, disturb=1000)
    assert loss(4, disturb=1) != loss(5, disturb=1)


def test_bfloat16_computes_in_it_and_keeps_float32_weights():
    trainer = make_trainer(amp="bf16")
    seen = []
    trainer.model.conv.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    loss = trainer.step(0, iter([batch_of([0, 1])]))[0]["loss"]
    assert seen == [torch.bfloat16]
    assert loss.dtype is torch.float32
    assert all(p.dtype is torch.float32 for p in trainer.model.parameters())


def test_half_precision_on_the_cpu_is_refused():
    with pytest.raises(UserError, match="`amp` fp16 needs a GPU"):
        make_trainer(amp="fp16")


def test_the_loop_reports_means_and_saves_at_the_end():
    trainer = make_trainer(lr=0.0)  # the weights stay, so that every step's loss can be computed apart
    batches = [batch_of([2 * i, 2 * i + 1]) for i in range(5)]
    expected = [make_trainer(lr=0.0).step(0, iter([batch]))[0]["loss"].item() for batch in batches]
    reports, saves = [], []
    train(
        trainer, iter(batches[1:]), 5, start=1, report_every=4, save_every=3,
        report=lambda done, scalars, skipped: reports.append((done, scalars["loss"])),
        save=lambda done, reason: saves.append(done),
    )  # fmt: skip
    assert [done for done, _ in reports] == [3, 4, 5]
    assert [loss for _, loss in reports] == pytest.approx([sum(expected[1:3]) / 2, *expected[3:]], rel=1e-6)
    assert saves == [3, 5]


class Normalised(Pointwise):
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


def make_normalised(accumulate=1):
    torch.manual_seed(0)
    model = Normalised()
    return Trainer(
        model, lambda outputs, batch, step: matting_losses(outputs, batch, ["l1", "comp"]),
        adamw(model, 0.05, (0.9, 0.95)), lambda step: 0.01, CPU,
        seed=3, accumulate=accumulate, clip=1.0, clip_factor=2.0, amp="off", compile=False,
    )  # fmt: skip


@pytest.mark.parametrize("where", ["input", "alpha"])
def test_a_step_that_is_not_finite_changes_nothing(where):
    """Weights, moments, the count of steps and running means: the same bits as if the batch had not been there."""
    good, bad = batch_of([0, 1]), spoil(batch_of([2, 3]), where)
    trainer, without = make_normalised(), make_normalised()
    for one in (trainer, without):
        one.step(0, iter([good]))
    before = state_of(trainer)
    scalars, flags = trainer.step(1, iter([bad]))
    assert flags.tolist() == [True, True]
    assert all(map(torch.equal, before, state_of(trainer)))
    for one in (trainer, without):
        one.step(2, iter([good]))
    assert all(map(torch.equal, state_of(without), state_of(trainer)))
    assert not all(map(torch.equal, before, state_of(trainer)))


def test_one_bad_micro_batch_is_told_from_the_others():
    trainer = make_normalised(accumulate=3)
    before = state_of(trainer)
    flags = trainer.step(0, iter([batch_of([0, 1]), spoil(batch_of([2, 3]), "input"), batch_of([4, 5])]))[1]
    assert flags.tolist() == [True, False, True, False]
    assert all(map(torch.equal, before, state_of(trainer)))


def test_an_exception_leaves_the_trainer_as_it_was():
    def batches():
        yield batch_of([0, 1])
        raise UserError("no file can be read any more")

    trainer = make_normalised(accumulate=2)
    before = state_of(trainer)
    with pytest.raises(UserError):
        trainer.step(0, batches())
    assert all(map(torch.equal, before, state_of(trainer)))
    assert all(p.grad is None for p in trainer.model.parameters())


def loop(trainer, bad, steps=8, **options):
    """Train on batches of which those of the steps ``bad`` are spoilt: reports and saves."""
    batches = [batch_of([2 * i, 2 * i + 1]) for i in range(steps)]
    for step in bad:
        spoil(batches[step], "input")
    reports, saves = [], []
    train(
        trainer, iter(batches), steps, start=0, report_every=2, save_every=100,
        report=lambda *told: reports.append(told), save=lambda *told: saves.append(told), **options,
    )  # fmt: skip
    return reports, saves


def test_steps_that_are_not_finite_are_named_and_do_not_count_in_the_mean():
    reports, saves = loop(make_normalised(), bad=[1, 4, 5])
    assert [(done, skipped) for done, _, skipped in reports] == [(2, {1: [0]}), (4, {}), (6, {4: [0], 5: [0]}), (8, {})]
    alone = make_normalised().step(0, iter([batch_of([0, 1])]))[0]["loss"].item()
    assert reports[0][1]["loss"] == alone
    assert math.isnan(reports[2][1]["loss"])
    assert saves == [(8, "")]


def test_too_many_in_a_row_stop_the_run_with_the_last_good_state():
    trainer, expected = make_normalised(), make_normalised()
    for step in range(3):
        expected.step(step, iter([batch_of([2 * step, 2 * step + 1])]))
    with pytest.raises(UserError, match="3 steps in a row up to step 6 had a loss or a gradient that is not finite"):
        loop(trainer, bad=[3, 4, 5], max_nonfinite=3)
    assert all(map(torch.equal, state_of(trainer), state_of(expected)))
    loop(make_normalised(), bad=[2, 3, 5, 6], max_nonfinite=3)  # not in a row


def test_a_reason_to_stop_ends_the_loop_after_a_save():
    reports, saves = loop(make_normalised(), bad=[], stop=lambda done: "asked" if done == 3 else "")
    assert saves == [(3, "asked")]
    assert [done for done, *_ in reports] == [2, 3]
