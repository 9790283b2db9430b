"""The recipe of DPT's released code: its samples as distributions, and each of its options alone, exactly."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomllib
import torch
from reference import official_code

from dptmat.config.pretrain import PretrainConfig
from dptmat.config.settings import from_mapping
from dptmat.data.pair_batch import AlphaRecipe, compose_scene, draw_alpha, make_pair_batch, make_scene
from dptmat.defaults import MEAN, STD
from dptmat.errors import UserError
from dptmat.kernels.philox import Stream, words
from dptmat.pipelines.batches import Pairs
from dptmat.tasks import pretrain as task
from dptmat.tasks.pretrain import Pretraining
from dptmat.training import distributed
from dptmat.training.build import _choose_schedule, make_loader
from dptmat.training.distributed import Process
from dptmat.training.quarantine import Quarantine

RECIPE = tomllib.loads((Path(__file__).parent.parent / "recipes/pretrain/official-code.toml").read_text())
CODE = {name: value for name, value in RECIPE.items() if name not in ("sync_bn", "amp")}
SAMPLES = 288  # four of each photograph


def make_task(photographs, process=None, **options):
    options = {"data": str(photographs), "out": "unused", "device": "cpu", "batch_size": 8, "seed": 5, **options}
    settings = from_mapping(PretrainConfig, options, "the test")
    return Pretraining(settings, process or distributed.single_process("cpu")), settings


def draw(photographs, batches=1, start=0, process=None, bad=None, **options):
    """Some micro-batches: (what the graph gives, what is made of it)."""
    made, settings = make_task(photographs, process, **options)
    loader = make_loader(made, settings, made._process, start, Quarantine(known=bad))
    return [(views, task.synthesize_batch(views, settings)) for _, views in zip(range(batches), loader, strict=False)]


def recipe_of(settings):
    return task._take_fields(AlphaRecipe, settings)


def statistics(composite, alpha, trimap):
    """Of one sample: composite [H, W, 3], alpha [H, W], trimap [H, W]."""
    unknown = alpha[trimap == 1]
    levels = np.histogram(unknown, 8, (0, 1))[0] / unknown.size
    return [
        *((trimap == state).mean() for state in range(3)), unknown.mean(), unknown.std(), *levels,
        *composite.mean((0, 1)), *composite.std((0, 1)),
        *(np.abs(np.diff(composite, axis=axis)).mean() for axis in (0, 1)),
        *(np.abs(np.diff(alpha, axis=axis)).mean() for axis in (0, 1)),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ours(photographs):
    """Statistics of each of SAMPLES samples of the recipe."""
    rows = []
    for _, batch in draw(photographs, SAMPLES // 8, **CODE):
        images = batch.input[:, :3] * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
        for image, alpha, trimap in zip(images.permute(0, 2, 3, 1), batch.alpha[:, 0], batch.trimap[:, 0], strict=True):
            rows.append(statistics(image.numpy(), alpha.numpy(), trimap.numpy()))
    return np.array(rows)


def test_shares_and_alpha_are_those_of_the_released_code(ours):
    """Its numbers, of 1,500 samples: means of the values of each; alpha is made alike on whatever photograph."""
    known = [0.188, 0.724, 0.088, 0.500, 0.260]
    spread = ours.std(0)[:5] * (1 / SAMPLES + 1 / 1500) ** 0.5
    assert (np.abs(ours.mean(0)[:5] - known) < 3.5 * spread + 0.0005).all()


def test_samples_are_distributed_as_those_of_an_independent_generator(ours, photographs):
    random = np.random.default_rng(1)
    pictures = [official_code.read_squashed(path) for path in sorted(photographs.iterdir())]
    theirs = np.array(
        [
            statistics(*official_code.draw_sample(fg, pictures[random.integers(len(pictures))], random))
            for fg in pictures * (SAMPLES // len(pictures))
        ]
    )
    spread = ((ours.var(0) + theirs.var(0)) / SAMPLES) ** 0.5
    # 4 deviations: another seed would be refused once in 600 times (25 statistics). A sample without the move, with
    # colours of the hue alone, with alphas of 256 levels over moved cells of the trimap is refused.
    z = (ours.mean(0) - theirs.mean(0)) / spread
    assert np.abs(z).max() < 4, z.round(1)


@pytest.mark.parametrize("pick", [{}, {"alpha_mode": "block", "unknown": 0.5, "foreground": 0.25}])
def test_made_by_torch_operators_the_papers_samples_are_those_of_the_fused_operator(photographs, pick):
    """The general way with the options of the paper, and the way of a run without options."""
    ((views, batch),) = draw(photographs, size=96, micro_batch=8, **pick)
    made, settings = make_task(photographs, size=96, **pick)
    plain = task.Pairing("pairing", True, False, False, "hue")
    made.source = task.PairSource(made.index, made.sampler, task.choose_augmentation(settings), 96, "crop", plain)
    pairs = next(make_loader(made, settings, made._process, 0, Quarantine()))
    assert torch.equal(pairs.fg, views.views)
    assert torch.equal(pairs.pairing, batch.pairing)
    general = make_pair_batch(pairs, recipe_of(settings))
    assert torch.equal(general.trimap, batch.trimap)
    for name in ("input", "alpha", "contrast"):
        torch.testing.assert_close(getattr(general, name), getattr(batch, name), rtol=1e-5, atol=1e-5)


def test_what_is_not_moved_is_as_it_was_made(photographs):
    still = {"scale_min": 1.0, "scale_max": 1.0, "shear": 0.0, "hflip": 0.0, "vflip": 0.0}
    ((pairs, batch),) = draw(photographs, **CODE, **still)
    _, settings = make_task(photographs, **CODE)
    made, trimap = draw_alpha(pairs.ids, (224, 224), recipe_of(settings))
    assert torch.equal(batch.alpha[:, 0], made.float() / 255)
    # Alone an unknown pixel of level 0 is read as background.
    assert torch.equal(batch.trimap[:, 0], torch.where((trimap == 1) & (made == 0), 0, trimap).byte())


@pytest.mark.parametrize("options", [CODE, {**CODE, "interpolation": False, "rotation": 30.0, "colors": "hue"}])
def test_the_trimap_is_read_from_the_moved_alpha(photographs, options):
    ((_, batch),) = draw(photographs, **options)
    assert torch.equal(batch.trimap == 0, batch.alpha == 0)
    assert torch.equal(batch.trimap == 2, batch.alpha == 1)
    assert (batch.trimap.flatten(1).float().std(1) > 0).all()
    assert torch.equal(batch.input[:, 3:], torch.cat([(batch.trimap == state).float() for state in range(3)], 1))


def test_a_flip_turns_about_the_middle_of_its_own(photographs):
    """About 112.5, where pixels are whole numbers: pixel x shows pixel 225 - x, so that the first column is empty."""
    flipped = {"scale_min": 1.0, "scale_max": 1.0, "shear": 0.0, "hflip": 1.0, "vflip": 0.0}
    ((pairs, batch),) = draw(photographs, **CODE, **flipped)
    made, _ = draw_alpha(pairs.ids, (224, 224), recipe_of(make_task(photographs, **CODE)[1]))
    made = made.float() / 255
    assert (batch.alpha[..., 0] == 0).all()
    assert torch.equal(batch.alpha[:, 0, 1:, 2:], made[:, 1:].flip(2)[..., :-1][..., :222])


def test_an_alpha_of_255_levels_is_uniform_and_never_that_of_foreground():
    recipe = AlphaRecipe(3, 7, 1.0, 0.0, "pixel", 255, False)
    alpha, _ = draw_alpha(torch.arange(8), (224, 224), recipe)
    counts = np.bincount(alpha.flatten().numpy(), minlength=256)
    assert counts[255] == 0
    expected = alpha.numel() / 255
    assert abs(((counts[:255] - expected) ** 2 / expected).sum() - 254) < 4.5 * (2 * 254) ** 0.5
    whole, _ = draw_alpha(torch.arange(8), (224, 224), dataclasses.replace(recipe, alpha_levels=256))
    assert torch.equal(alpha[whole < 255], whole[whole < 255])


def test_backgrounds_are_left_as_they_are_in_the_files(photographs):
    files = [str(path) for path in sorted(photographs.iterdir())]
    ((pairs, batch),) = draw(photographs, **CODE)
    made, settings = make_task(photographs, **CODE)
    scene = make_scene(pairs, recipe_of(settings))
    drawn = words(5, Stream.BACKGROUND, pairs.ids.numpy(), 1)[:, 0].astype(np.uint64)
    for n in range(8):
        number = (int(drawn[n, 0]) + (int(drawn[n, 1]) << 32)) % len(files)
        assert made.index[number] == files[number]
        expected = official_code.read_squashed(files[number]).astype(int)
        # The JPEG decoders of DALI and OpenCV differ in single pixels by a few levels.
        assert np.abs(pairs.bg[n].numpy() - expected).mean() < 0.5
    assert torch.equal(scene.bg, pairs.bg.permute(0, 3, 1, 2).float() / 255)


def test_backgrounds_are_drawn_evenly_and_more_than_once(photographs):
    made, _ = make_task(photographs, **CODE)
    drawn = Counter(made.source._backgrounds(np.arange(7200), {}))
    assert len(drawn) == 72
    assert abs(sum((count - 100) ** 2 / 100 for count in drawn.values()) - 71) < 4.5 * (2 * 71) ** 0.5


@pytest.mark.parametrize("colors", ["hue", "hsv"])
def test_backgrounds_drawn_anew_have_changes_of_their_own(photographs, colors):
    made, _ = make_task(photographs, background="anew", colors=colors)
    _, _, in_front, behind, _, color, *_ = made.source.arguments(np.arange(2000), {}, lambda paths: paths)
    for a, b in ((in_front[:, 0, 1], behind[:, 0, 1]), (color[:, 0, ..., 0].T, color[:, 1, ..., 0].T)):
        correlation = np.corrcoef(np.vstack([a, b]))[: len(np.atleast_2d(a)), len(np.atleast_2d(a)) :]
        assert np.abs(correlation).max() < 4.5 / 2000**0.5


def test_only_samples_with_a_bad_file_change(photographs):
    """As foreground or as background."""
    made, _ = make_task(photographs, **CODE)
    ids = np.arange(72)
    paths = made.source._columns(ids, {})
    bad = {str(Path(paths[1][0]).absolute()): "is damaged"}
    for before, now in zip(paths, made.source._columns(ids, bad), strict=True):
        hit = [str(Path(path).absolute()) in bad for path in before]
        assert any(hit)
        assert [a == b for a, b in zip(before, now, strict=True)] == [not h for h in hit]
        assert not bad.keys() & {str(Path(path).absolute()) for path in now}


def test_a_damaged_background_is_found_and_replaced(photographs, tmp_path, caplog):
    shutil.copytree(photographs, tmp_path / "photographs")
    made, _ = make_task(tmp_path / "photographs", **CODE)
    foregrounds, backgrounds = made.source._columns(np.arange(8), {})
    damaged = next(path for path in backgrounds if path not in foregrounds)
    Path(damaged).write_bytes(b"no photograph")
    ((whole, _),) = draw(photographs, **CODE)
    ((pairs, _),) = draw(tmp_path / "photographs", **CODE)
    hit = torch.tensor([path == damaged for path in backgrounds])
    assert torch.equal(pairs.fg, whole.fg)
    assert torch.equal(pairs.bg[~hit], whole.bg[~hit])
    assert all((pairs.bg[n] != whole.bg[n]).any() for n in torch.nonzero(hit)[:, 0])


OPTIONS = [
    CODE, {"background": "anew"}, {"move_alpha": True}, {"augment_background": False}, {"colors": "hsv"},
    {"fit": "squash", "background": "anew", "colors": "hsv"}, {"move_alpha": True, "augment_background": False},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_samples_are_the_same_from_any_step_and_for_any_number_of_processes(photographs, options):
    options = {**options, "size": 64, "micro_batch": 4}
    whole = [batch for _, batch in draw(photographs, 4, **options)]
    ((_, resumed),) = draw(photographs, start=1, **options)
    assert torch.equal(resumed.input, whole[2].input)
    assert torch.equal(resumed.contrast, whole[2].contrast)
    for rank in range(2):
        process = Process(rank, 2, 2, torch.device("cpu"))
        ((_, part),) = draw(photographs, process=process, **options)
        assert torch.equal(part.input, whole[rank].input)


def test_each_photograph_of_its_own_is_squashed(photographs):
    files = [str(path) for path in sorted(photographs.iterdir())]
    straight = {"rotation": 0.0, "scale_min": 1.0, "scale_max": 1.0, "shear": 0.0, "hflip": 0.0, "vflip": 0.0}
    ((views, _),) = draw(photographs, fit="squash", **straight)
    made, _ = make_task(photographs)
    for view, number in zip(views.views, made.sampler.images_of(views.ids.numpy()), strict=True):
        assert np.abs(view.numpy().astype(int) - official_code.read_squashed(files[number])).mean() < 0.5


def test_colours_change_in_hsv_as_opencv_does_it(photographs):
    options = {"colors": "hsv", "augment_background": False, "background": "anew", "fit": "squash"}
    ((pairs, _),) = draw(photographs, **options)
    _, settings = make_task(photographs, **options)
    scene = make_scene(pairs, recipe_of(settings))
    hue = pairs.color[:, 0, 0]
    assert torch.equal(hue, hue.round())
    for n in range(8):
        turned, saturation, value = pairs.color[n, 0].tolist()
        hsv = cv2.cvtColor(pairs.fg[n].numpy().astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + turned) % 360
        for channel, by in ((1, saturation), (2, value)):
            mean = hsv[..., channel][scene.alpha[n, 0].numpy() > 0].mean()
            folded = np.abs(hsv[..., channel] + by * (1.1 - mean) / 10)
            hsv[..., channel] = np.where(folded > 1, 2 - folded, folded)
        expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).transpose(2, 0, 1)
        assert np.abs(scene.fg[n].numpy() - expected).max() < 2e-4


def test_hues_are_whole_degrees_below_the_limit():
    from ranges import make_augmentation

    hue, saturation, value = make_augmentation().jitters(np.arange(20000), 3).T
    assert sorted(set(hue)) == list(range(-40, 40))
    for x in (saturation, value):
        assert -1 <= x.min() < -0.999
        assert 0.999 < x.max() <= 1
    assert abs(np.corrcoef([hue, saturation, value])[np.triu_indices(3, 1)]).max() < 4.5 / 20000**0.5


def test_interpolation_without_a_move_is_refused():
    with pytest.raises(UserError, match="`interpolation` is that of an alpha that is moved; give `move_alpha`"):
        PretrainConfig(data="unused", out="unused", interpolation=True)


GENERAL = [CODE, {"colors": "hsv"}, {"move_alpha": True}, {"background": "anew"}, {**CODE, "colors": "hue"}]


@pytest.mark.parametrize("options", GENERAL)
def test_what_a_gpu_computes_is_what_the_cpu_does(photographs, options):
    """The operators that run there, here on the CPU: to less than a hundredth of a level."""
    ((pairs, batch),) = draw(photographs, **options)
    _, settings = make_task(photographs, **options)
    other = compose_scene(make_scene(pairs, recipe_of(settings)))
    assert torch.equal(other.alpha, batch.alpha)
    assert torch.equal(other.trimap, batch.trimap)
    assert other.input.stride() == batch.input.stride()
    assert ((other.input - batch.input) * 255 * torch.tensor([*STD, 1, 1, 1])[:, None, None]).abs().max() < 0.01
    torch.testing.assert_close(other.contrast, batch.contrast, rtol=1e-4, atol=1e-4)


def test_hues_turn_all_the_way_round_either_side(photographs):
    """As far as settings allow, where three turns of the colour circle have to be taken off."""
    ((pairs, _),) = draw(photographs, size=64, colors="hsv")
    recipe = recipe_of(make_task(photographs, size=64, colors="hsv")[1])
    turns = torch.tensor([-180.0, -179, -60, 0, 59, 61, 179, 180])
    pairs = pairs._replace(color=torch.stack([turns, turns * 0, turns * 0], 1)[:, None].repeat(1, 2, 1))
    fused, general = make_pair_batch(pairs, recipe), compose_scene(make_scene(pairs, recipe))
    torch.testing.assert_close(fused.input, general.input, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [CODE, {"background": "anew"}])
def test_a_batch_over_the_memory_of_another_one_is_the_same(photographs, options):
    (first, _), (second, batch) = draw(photographs, 2, **options)
    recipe = recipe_of(make_task(photographs, **options)[1])
    before = make_pair_batch(first, recipe)
    assert not torch.equal(before.input, batch.input)
    weight = torch.ones(1, requires_grad=True)
    loss = (before.input * weight).sum()
    over = make_pair_batch(second, recipe, before)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    assert over is before
    for name in ("input", "alpha", "contrast", "trimap"):
        assert torch.equal(getattr(over, name), getattr(batch, name))


def test_training_on_the_cpu_makes_batches_over_the_one_before(photographs):
    made, settings = make_task(photographs, **CODE)
    loader = make_loader(made, settings, made._process, 0, Quarantine())
    addresses = {made.batch(pairs).input.data_ptr() for _, pairs in zip(range(3), loader, strict=False)}
    assert len(addresses) == 1


@pytest.mark.gpu
def test_a_gpu_makes_the_same_samples(photographs):
    pairs, batch = draw(photographs, **CODE)[0]
    _, settings = make_task(photographs, **CODE)
    on_gpu = make_pair_batch(Pairs(*(x.cuda() for x in pairs)), recipe_of(settings))
    assert torch.equal(on_gpu.trimap.cpu(), batch.trimap)
    assert torch.equal(on_gpu.alpha.cpu(), batch.alpha)
    assert (on_gpu.input.cpu() - batch.input).abs().max() < 1 / 255


@pytest.mark.slow
def test_the_recipe_trains_and_resumes_exactly(photographs, tmp_path):
    options = {
        "data": str(photographs), "device": "cpu", "batch_size": 4, "micro_batch": 2, "size": 64, "model": "gca",
        "steps": 3, "save_every": 1, **CODE,
    }  # fmt: skip
    whole = task.pretrain(**options, out=str(tmp_path / "whole"))
    first = tmp_path / "whole/checkpoints/step-000000001.pt"
    again = task.pretrain(**options, out=str(tmp_path / "again"), resume=str(first))
    ours, theirs = (torch.load(path, weights_only=True)["model"] for path in (whole, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_recipe_has_the_rates_of_the_released_code(photographs):
    made, settings = make_task(photographs, **CODE)
    rate = _choose_schedule(made, settings)
    assert made.steps == 99 * 9
    assert [rate(9 * epoch + 8) for epoch in (0, 9, 54)] == pytest.approx([3e-5, 3e-4, 1.5e-4])
