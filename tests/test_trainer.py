"""One step of training: gradient accumulation, mixed precision, clipping."""

import pytest
import torch
from networks import batch_of, make_normalized, make_trainer, spoil, state_of

from dptmat.errors import UserError
from dptmat.training.distributed import Process


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


@pytest.mark.parametrize("where", ["input", "alpha"])
def test_a_step_that_is_not_finite_changes_nothing(where):
    """Weights, moments, the count of steps and running means: the same bits as if the batch had not been there."""
    good, bad = batch_of([0, 1]), spoil(batch_of([2, 3]), where)
    trainer, without = make_normalized(), make_normalized()
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


@pytest.mark.parametrize("scaled", [False, True])
def test_a_finite_gradient_of_infinite_norm_changes_nothing(scaled):
    """Clipping would leave zeros of it, and with them weight decay and moments would still move."""
    trainer = make_normalized()
    if scaled:  # as float16 is on a GPU
        trainer._scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.step(0, iter([batch_of([0, 1])]))
    before = state_of(trainer)
    weight = trainer.model.conv.weight
    hook = weight.register_hook(lambda gradient: gradient * 1e30)
    seen = []
    weight.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad.isfinite().all().item()))
    scalars, flags = trainer.step(1, iter([batch_of([2, 3])]))
    assert seen == [True]
    assert scalars["grad_norm"].isinf()
    assert flags.tolist() == [True, False]
    assert all(map(torch.equal, before, state_of(trainer)))
    hook.remove()
    trainer.step(2, iter([batch_of([2, 3])]))
    assert not all(map(torch.equal, before, state_of(trainer)))


@pytest.mark.parametrize("where", ["input", "contrast"])
def test_an_infinite_gradient_lowers_the_scale_and_changes_nothing_else(where):
    trainer = make_normalized()
    trainer._scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = state_of(trainer)
    flags = trainer.step(0, iter([spoil(batch_of([2, 3]), where)]))[1]
    assert flags.tolist() == [True, True]
    assert all(map(torch.equal, before, state_of(trainer)))
    assert trainer.state_dict()["scaler"]["scale"] == 512.0


def test_one_bad_micro_batch_is_told_from_the_others():
    trainer = make_normalized(accumulate=3)
    before = state_of(trainer)
    flags = trainer.step(0, iter([batch_of([0, 1]), spoil(batch_of([2, 3]), "input"), batch_of([4, 5])]))[1]
    assert flags.tolist() == [True, False, True, False]
    assert all(map(torch.equal, before, state_of(trainer)))


def test_an_exception_leaves_the_trainer_as_it_was():
    def batches():
        yield batch_of([0, 1])
        raise UserError("no file can be read any more")

    trainer = make_normalized(accumulate=2)
    before = state_of(trainer)
    with pytest.raises(UserError):
        trainer.step(0, batches())
    assert all(map(torch.equal, before, state_of(trainer)))
    assert all(p.grad is None for p in trainer.model.parameters())


def step_as_one_of_two(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    trainer = make_normalized(process=Process(rank, 2, 1, torch.device("cpu")))
    for number in range(3):
        trainer.step(number, iter([batch_of([4 * number + 2 * rank, 4 * number + 2 * rank + 1])]))
    torch.save(trainer.model.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_share_weights_and_keep_their_own_statistics(tmp_path):
    """They send gradients and nothing else: statistics that nobody trains with would be sent with every batch."""
    torch.multiprocessing.spawn(step_as_one_of_two, (str(tmp_path),), nprocs=2)
    states = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name in ("conv.weight", "conv.bias", "norm.weight", "norm.bias"):
        assert torch.equal(states[0][name], states[1][name])
    norm = torch.nn.BatchNorm2d(6)
    for rank in (0, 1):
        norm.reset_running_stats()
        for number in range(3):
            norm(batch_of([4 * number + 2 * rank, 4 * number + 2 * rank + 1]).input)
        assert torch.equal(states[rank]["norm.running_mean"], norm.running_mean)
        assert torch.equal(states[rank]["norm.running_var"], norm.running_var)
