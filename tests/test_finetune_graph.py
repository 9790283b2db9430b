"""The graph of fine-tuning against whole pictures resized, warped and cropped by OpenCV, in the published order."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mattes import shades, write_mattes
from PIL import Image
from ranges import make_recipe

from dptmat.data.foregrounds import read_foregrounds
from dptmat.data.index import ImageIndex
from dptmat.data.sampler import Sampler
from dptmat.errors import UserError
from dptmat.kernels.permutation import permute, round_keys
from dptmat.kernels.philox import Stream
from dptmat.pipelines.augment import linear_map
from dptmat.pipelines.crop_window import draw_second_foregrounds, draw_windows
from dptmat.pipelines.finetune import FinetuneSource
from dptmat.pipelines.loader import Loader
from dptmat.training.quarantine import Quarantine

SEED, SIZE = 5, 128
SIZES = [(300, 200), (150, 1100), (90, 70), (1200, 400)]  # one is enlarged, two are large enough to be rotated


@pytest.fixture
def files(tmp_path):
    folders = write_mattes(tmp_path, SIZES)
    (tmp_path / "bg").mkdir()
    for i in range(8):
        cv2.imwrite(str(tmp_path / f"bg/{i}.png"), shades(200 + 20 * i, 260, 100 + i))
    return *folders, tmp_path / "bg"


def make_loader(files, recipe, report=lambda *_: None, device="cpu"):
    fg, alpha, bg = files
    foregrounds, index = read_foregrounds(fg, alpha)[0], ImageIndex.open(bg)
    sampler = Sampler(SEED, len(index), 8)
    source = FinetuneSource(foregrounds, index, sampler, recipe, SIZE)
    loader = Loader(source, sampler, micro_batch=8, device=device, threads=2, prefetch=1, quarantine=Quarantine(report))
    return loader, foregrounds, index, sampler


def published(picture, i, ids, frame, recipe, corner):
    """One layer by the published steps: resized to the frame, warped about its centre, enlarged, cropped."""
    width, height = (int(side) for side in frame)
    picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
    rotation, shear, _, zoom = recipe.augmentation.draw(ids, SEED)
    if max(frame) < 1024:
        rotation = np.zeros_like(rotation)
    linear = linear_map(rotation, shear, zoom)[i]
    centre = frame / 2 - 0.5  # in indices of pixels
    matrix = np.column_stack([linear, centre - linear @ centre])
    picture = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    if frame.min() <= SIZE:
        enlarge = 1.1 * SIZE / frame.min()
        picture = cv2.resize(picture, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_LINEAR)
    x, y = (int(side) for side in corner)
    return picture[y : y + SIZE, x : x + SIZE]


@pytest.mark.parametrize("recipe", [make_recipe(interpolation=False), make_recipe()], ids=["linear", "drawn filters"])
@pytest.mark.slow
def test_layers_equal_whole_pictures_by_opencv(files, recipe, device):
    loader, foregrounds, index, sampler = make_loader(files, recipe, device=device)
    tried = {"squeezed": 0, "rotated": 0, "enlarged": 0, "combined": 0}
    for step in range(4):
        layers = [layer.cpu().numpy() for layer in next(loader)]
        ids = sampler.ids(step)
        rounds, positions = np.divmod(ids, len(foregrounds))
        firsts = permute(positions, len(foregrounds), round_keys(SEED, Stream.FOREGROUND, rounds))
        seconds = draw_second_foregrounds(ids, SEED, len(foregrounds))
        windows = draw_windows(
            ids, SEED, [foregrounds[n] for n in firsts], [foregrounds[n] for n in seconds], SIZE, recipe
        )
        backgrounds = sampler.images_of(ids)
        for i in range(len(ids)):
            first = foregrounds[firsts[i]]
            squeezed = words_of(ids[i])[2] < recipe.squeeze
            frame = np.array([640, 640] if squeezed else [first.width, first.height])
            scene = frame * (1.1 * SIZE / frame.min() if frame.min() <= SIZE else 1)
            corner = np.round(windows.background_window[i, 0, ::-1] * scene)
            crop = slice(recipe.margin, -recipe.margin)
            alpha = cv2.imread(first.alpha, cv2.IMREAD_GRAYSCALE)
            wanted = published(alpha, i, ids, frame, recipe, corner).astype(int)
            seen = layers[1][i, crop, crop, 0]
            # Twelve levels are a pixel of the disc's slope. Its nearest pixel is up to half of one of the file away,
            # of which small files have few in the frame.
            fg_far, alpha_far, bg_far = np.where(windows.filters[i] == 0, 3, 0)
            assert np.abs(seen - wanted).mean() < 1.5 + alpha_far, (step, i, squeezed, frame)
            inside = published(np.full_like(alpha, 255), i, ids, frame, recipe, corner) == 255
            for path, layer in ((first.fg, layers[0]), (foregrounds[seconds[i]].fg, layers[2])):
                if layer is layers[2] and not windows.combined[i]:
                    continue
                fg = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
                wanted = published(fg, i, ids, frame, recipe, corner).astype(int)
                assert np.abs(layer[i, crop, crop] - wanted)[inside].mean() < 2 + fg_far, (step, i, path)
            bg = cv2.cvtColor(cv2.imread(index[backgrounds[i]]), cv2.COLOR_BGR2RGB)
            bg = cv2.resize(bg, tuple(np.round(scene).astype(int)), interpolation=cv2.INTER_LINEAR)
            x, y = corner.astype(int)
            wanted = bg[y : y + SIZE, x : x + SIZE].astype(int)
            assert np.abs(layers[4][i] - wanted).mean() < 2 + bg_far
            tried["squeezed"] += squeezed
            tried["rotated"] += max(frame) >= 1024
            tried["enlarged"] += frame.min() <= SIZE
            tried["combined"] += windows.combined[i]
    assert min(tried.values()) > 2


def words_of(ident):
    from dptmat.kernels.philox import words

    return words(SEED, Stream.FINETUNE, [ident], 5).reshape(-1) / 2.0**32


def test_every_foreground_comes_once_a_round_and_every_background_once_an_epoch(files):
    fg, alpha, bg = files
    foregrounds, index = read_foregrounds(fg, alpha)[0], ImageIndex.open(bg)
    source = FinetuneSource(foregrounds, index, Sampler(SEED, len(index), 8), make_recipe(), SIZE)
    for first in (0, 4, 96):
        shown = source._shown(np.arange(first, first + 4), {})[0]
        assert sorted(foreground.fg for foreground in shown) == sorted(foreground.fg for foreground in foregrounds)
    assert sorted(source._shown(np.arange(8, 16), {})[2]) == list(range(8))


def test_each_stage_of_the_graph_can_be_the_last(files):
    loader, foregrounds, index, sampler = make_loader(files, make_recipe())
    source = FinetuneSource(foregrounds, index, sampler, make_recipe(), SIZE)
    firsts, _, backgrounds = source._shown(sampler.ids(0), {})
    fg, _, _, _, bg, *_ = next(loader.run_to("read"))
    for i in range(8):
        assert np.array(fg.at(i)).tobytes() == Path(firsts[i].fg).read_bytes()
        assert np.array(bg.at(i)).tobytes() == Path(index[backgrounds[i]]).read_bytes()
    fg, alpha, *_ = next(loader.run_to("decode"))
    for i in range(8):
        assert np.array(fg.at(i)).shape == (firsts[i].height, firsts[i].width, 3)
        assert np.array(alpha.at(i)).shape == (firsts[i].height, firsts[i].width, 1)
    whole = next(loader.run_to("warp"))
    for part, layer in zip(whole, next(loader), strict=True):
        assert np.array_equal(np.array(part.as_tensor()), layer)


@pytest.mark.parametrize("which", ["fg", "alpha", "bg"])
def test_a_bad_file_costs_its_own_samples_alone(files, which):
    good = [[layer.clone() for layer in next(make_loader(files, make_recipe())[0])] for _ in range(1)][0]
    named = []
    loader, foregrounds, index, sampler = make_loader(files, make_recipe(), lambda path, reason: named.append(path))
    path = {"fg": foregrounds[0].fg, "alpha": foregrounds[0].alpha, "bg": index[0]}[which]
    with open(path, "wb") as file:
        file.write(b"no picture\n")
    layers = next(loader)
    assert named == [path]
    if which == "bg":
        touched = sampler.images_of(sampler.ids(0)) == 0
    else:
        source = FinetuneSource(foregrounds, index, sampler, make_recipe(), SIZE)
        firsts, seconds, _ = source._shown(sampler.ids(0), {})
        combined = good[5][:, 0].numpy() > 0
        touched = np.array([
            foregrounds[0].fg == a.fg or (foregrounds[0].fg == b.fg and c)
            for a, b, c in zip(firsts, seconds, combined, strict=True)
        ])  # fmt: skip
    assert 0 < touched.sum() < 8
    same = np.array([all(torch.equal(a[i], b[i]) for a, b in zip(good[:2], layers[:2], strict=True)) for i in range(8)])
    behind = np.array([torch.equal(a, b) for a, b in zip(good[4], layers[4], strict=True)])
    assert np.array_equal(same & behind, ~touched)
    assert torch.equal(good[6], layers[6])


def test_bad_files_of_its_own_are_counted_alone(files):
    fg, alpha, bg = files
    foregrounds, index = read_foregrounds(fg, alpha)[0], ImageIndex.open(bg)
    source = FinetuneSource(foregrounds, index, Sampler(SEED, len(index), 8), make_recipe(), SIZE)
    foreign = {f"/elsewhere/{i}.jpg": "is damaged" for i in range(100)}
    assert source.count_bad(foreign) == [("foregrounds", 0, 4), ("backgrounds", 0, 8)]
    bad = {**foreign, foregrounds[0].fg: "x", foregrounds[0].alpha: "x", foregrounds[1].alpha: "x", index[2]: "x"}
    assert source.count_bad(bad) == [("foregrounds", 2, 4), ("backgrounds", 1, 8)]
    source.require_some(bad)
    with pytest.raises(UserError, match="none of the 4 foregrounds can be decoded"):
        source.require_some({foreground.fg: "x" for foreground in foregrounds})
    with pytest.raises(UserError, match="none of the 8 backgrounds can be decoded"):
        source.require_some({index[i]: "x" for i in range(8)})
