"""What photographs are like: against numpy, Pillow and files of every kind."""

import math
import re
import tarfile
from collections import Counter

import numpy as np
import pytest
from image_kinds import DALI, PILLOW, write_kinds
from PIL import Image

from dptmat.cli import dptmat as command
from dptmat.data.image_io import read_image
from dptmat.data.index import ImageIndex
from dptmat.data.photographs import open_photographs
from dptmat.errors import UserError
from dptmat.report.distributions import draw_distributions
from dptmat.tasks.stats import Stats, measure, table


def write_photographs(folder, sizes, form="jpg"):
    folder.mkdir(exist_ok=True)
    for k, size in enumerate(sizes):
        Image.effect_noise(size, 50).convert("RGB").save(folder / f"{k:04d}.{form}")
    return ImageIndex.open(folder)


def made_up(sides, *, photographs=None, bad=0, rate=100.0):
    """Stats of square photographs of 1 kB."""
    sides = np.array(sides, np.int64)
    count = len(sides) + bad
    reasons = Counter({"it was cut short": bad} if bad else {})
    kinds, modes = Counter({"JPEG": len(sides)}), Counter({"RGB": len(sides)})
    return Stats(
        photographs or count, count, sides, sides, np.full(len(sides), 1000), kinds, modes, reasons, rate, 2
    )  # fmt: skip


def test_every_kind_is_measured_as_it_is_decoded(tmp_path):
    paths = write_kinds(tmp_path, DALI | PILLOW)
    (tmp_path / "list.txt").write_text("\n".join(paths))
    stats = measure(ImageIndex.open(tmp_path / "list.txt"))
    shapes = [read_image(path).shape[:2] for path in paths]
    assert list(zip(stats.height, stats.width, strict=True)) == shapes
    assert stats.bytes.tolist() == [(tmp_path / name).stat().st_size for name in DALI | PILLOW]
    assert stats.kinds["JPEG, progressive"] == 1
    assert stats.kinds["JPEG"] == 14
    assert stats.modes.total() == stats.kinds.total() == len(paths)
    assert not stats.bad


def test_all_are_looked_at_where_there_are_few(tmp_path):
    sizes = [(40 + k, 30 + 2 * k) for k in range(25)]
    seen = []
    stats = measure(write_photographs(tmp_path / "photos", sizes), 25, lambda: seen.append(1))
    assert list(zip(stats.width, stats.height, strict=True)) == sizes
    assert stats.photographs == stats.looked_at == len(seen) == 25
    assert stats.shorter.tolist() == [min(size) for size in sizes]
    assert stats.ratio.tolist() == [max(size) / min(size) for size in sizes]


@pytest.mark.parametrize(("count", "most"), [(30, 7), (30, 29), (3, 1), (1, 5)])
def test_those_looked_at_are_spread_evenly_over_all(tmp_path, count, most):
    index = write_photographs(tmp_path / "photos", [(10 + k, 200) for k in range(count)])
    places = measure(index, most).width - 10
    assert len(places) == min(count, most)
    if most > 1:
        assert places[0] == 0
        assert places[-1] == count - 1
        assert len(set(np.diff(places))) <= 2  # a whole number and the next one


def test_bad_files_are_counted_by_their_reasons(tmp_path):
    index = write_photographs(tmp_path, [(64, 64)] * 4)
    whole = (tmp_path / "0000.jpg").read_bytes()
    (tmp_path / "0001.jpg").write_bytes(whole[:-20])
    (tmp_path / "0002.jpg").write_bytes(b"<html>")
    (tmp_path / "0003.jpg").unlink()
    stats = measure(index)
    assert stats.bad.total() == 3
    assert len(stats.width) == 1
    assert any("cut short" in reason for reason in stats.bad)
    assert "bad             3 of 4: " in table(stats)
    (tmp_path / "0000.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="none of 4 photographs looked at can be read"):
        measure(index)


def test_damaged_pixels_do_not_stop_the_clock(tmp_path):
    index = write_photographs(tmp_path, [(64, 64)] * 3, "png")
    content = bytearray((tmp_path / "0001.png").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "0001.png").write_bytes(content)
    assert measure(index).images_per_second > 0


def test_the_table_tells_what_the_numbers_are():
    text = table(made_up([100, 200, 223, 224, 300, 400, 500, 600], rate=10), epochs=90)
    assert "below 224       37.5% have a shorter side of fewer than 224 pixels" in text
    assert "10 a second on 2 CPU cores" in text
    assert "for 90 epochs   72 seconds of decoding alone" in text  # 8 * 90 / 10
    assert "bytes           8.0 kB, on average 1.0 kB each" in text
    (row,) = re.findall(r"^shorter side +(.*)", text, re.MULTILINE)
    expected = np.quantile([100, 200, 223, 224, 300, 400, 500, 600], [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
    assert [float(word) for word in row.split()] == pytest.approx(expected, abs=0.5)  # whole pixels are shown


def test_what_is_derived_of_all_is_of_all():
    text = table(made_up([300] * 900, photographs=1_000_000, bad=100, rate=500.0), epochs=100)
    assert "photographs     1,000,000; what follows is of 1,000, spread evenly over them" in text
    assert "about 900 MB, on average 1.0 kB each" in text  # one in ten is bad
    assert "for 100 epochs  2.3 days of decoding alone" in text  # 1e8 / 500 seconds
    assert "an unknown time" in table(made_up([300], rate=math.nan))


def test_the_picture_is_made_of_one_size_too(tmp_path):
    for sizes in ([[500, 375]], [[500, 375]] * 3, [[1, 1], [60_000, 40_000]], [[300, 10], [10, 300]]):
        draw_distributions(tmp_path / "a.png", "a", np.array(sizes), np.full(len(sizes), 1000), 224)
        assert Image.open(tmp_path / "a.png").size == (1000, 700)


def test_photographs_in_shards_are_those_of_the_folder(tmp_path):
    index = write_photographs(tmp_path / "photos", [(40 + k, 30) for k in range(9)])
    with tarfile.open(tmp_path / "train-00000-of-00001", "w") as tar:
        tar.add(tmp_path / "photos", ".")
    packed = measure(open_photographs(tmp_path / "train-00000-of-00001"))
    assert sorted(packed.width) == sorted(measure(index).width)
    assert packed.bytes.sum() == sum(path.stat().st_size for path in (tmp_path / "photos").iterdir())


def test_the_command(tmp_path):
    from click.testing import CliRunner

    write_photographs(tmp_path / "photos", [(300, 200), (200, 300), (400, 300)])
    words = ["stats", "--data", str(tmp_path / "photos"), "--epochs", "7", "--out", str(tmp_path / "a.png")]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert "photographs     3" in result.output
    assert "66.7% have a shorter side of fewer than 224 pixels" in result.output
    assert "for 7 epochs" in result.output
    assert Image.open(tmp_path / "a.png").format == "PNG"
    (tmp_path / "b.png").write_text("notes")
    result = CliRunner().invoke(command, [*words[:-1], str(tmp_path / "b.png")])
    assert "is there already and is text" in result.output
    assert (tmp_path / "b.png").read_text() == "notes"
