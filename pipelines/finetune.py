"""Fine-tuning's samples: their foregrounds, backgrounds and windows, and the graph that cuts them out of the files."""

import itertools
import os

import numpy as np

from dptmat.errors import UserError
from dptmat.kernels.permutation import permute, round_keys
from dptmat.kernels.philox import Stream
from dptmat.pipelines._dali import fn, pipeline_def, types
from dptmat.pipelines.batches import Layers
from dptmat.pipelines.crop_window import draw_seconds, draw_windows
from dptmat.pipelines.paths import encode_path
from dptmat.pipelines.probe import read

_FILTERS = types.INTERP_NN, types.INTERP_LINEAR, types.INTERP_CUBIC, types.INTERP_LANCZOS3  # in the order of FILTERS


class FinetuneSource:
    """What a batch of sample ids shows: each background once in an epoch, the foregrounds in rounds of their own.

    Args:
        foregrounds: List of ``Foreground``.
        backgrounds: ``ImageIndex``.
        sampler: Order of the backgrounds (``Sampler``).
        recipe: Ranges of the random changes (``Recipe``).
        size: Side of the square crops in pixels.
    """

    outputs = Layers

    def __init__(self, foregrounds, backgrounds, sampler, recipe, size):
        self._foregrounds, self._backgrounds, self._sampler = foregrounds, backgrounds, sampler
        self._recipe, self._size = recipe, size

    def graph(self, feed, **options):
        """Build the graph that ``feed`` gives the arguments of; ``options`` are its others and those of a pipeline."""
        return finetune_graph(feed, self._size, self._recipe.margin, **options)

    def arguments(self, ids, bad):
        """Arguments of one batch of the graph."""
        firsts, seconds, backgrounds = self._shown(ids, bad)
        windows = draw_windows(ids, self._sampler.seed, firsts, seconds, self._size, self._recipe)
        filters = np.array([int(kind) for kind in _FILTERS], np.int32)[windows.filters]
        paths = (
            [encode_path(path) for path in column]
            for column in (
                [first.fg for first in firsts],
                [first.alpha for first in firsts],
                [second.fg for second in seconds],
                [second.alpha for second in seconds],
                [self._backgrounds[number] for number in backgrounds],
            )
        )
        numbers = (
            windows.combined, *windows.region.swapaxes(0, 1), windows.shape, windows.matrix,
            *windows.background_window.swapaxes(0, 1), *filters.T, windows.choices, ids,
        )  # fmt: skip
        return *paths, *map(np.ascontiguousarray, numbers)

    def files(self, ids, bad):
        """Paths of the files that the graph reads for samples ``ids``, each once."""
        firsts, seconds, backgrounds = self._shown(ids, bad)
        paths = [path for foreground in (*firsts, *seconds) for path in (foreground.fg, foreground.alpha)]
        return list(dict.fromkeys([*paths, *(self._backgrounds[number] for number in backgrounds)]))

    def require_some(self, bad):
        """Refuse to go on where nothing is left."""
        for kind, count, all_of_them in self.count_bad(bad):
            if count >= all_of_them:
                raise UserError(f"none of the {all_of_them} {kind} can be decoded; the messages above say why")

    def count_bad(self, bad):
        """How many files of each kind are bad, and how many there are: tuples of (kind, number, number of all)."""
        of_foregrounds = {os.path.abspath(path) for f in self._foregrounds for path in (f.fg, f.alpha)}
        return [
            ("foregrounds", sum(self._is_bad(f, bad) for f in self._foregrounds), len(self._foregrounds)),
            ("backgrounds", len(bad.keys() - of_foregrounds), len(self._backgrounds)),
        ]

    def _is_bad(self, foreground, bad):
        return os.path.abspath(foreground.fg) in bad or os.path.abspath(foreground.alpha) in bad

    def _shown(self, ids, bad):
        """Foregrounds, second foregrounds and the numbers of the backgrounds of samples ``ids``."""
        seed, count = self._sampler.seed, len(self._foregrounds)
        rounds, positions = np.divmod(ids, count)
        firsts = permute(positions, count, round_keys(seed, Stream.FOREGROUND, rounds)).tolist()
        seconds, backgrounds = draw_seconds(ids, seed, count).tolist(), self._sampler.images_of(ids).tolist()
        if bad:
            for i, ident in enumerate(ids):
                others = itertools.chain([backgrounds[i]], self._sampler.substitutes(ident))
                backgrounds[i] = next(n for n in others if os.path.abspath(self._backgrounds[n]) not in bad)
                for numbers in (firsts, seconds):
                    numbers[i] = self._good_foreground(numbers[i], ident, bad)
        foregrounds = self._foregrounds
        return [foregrounds[n] for n in firsts], [foregrounds[n] for n in seconds], backgrounds

    def _good_foreground(self, number, ident, bad):
        """``number``, or if its files are bad one that (seed, sample id) chooses."""
        keys = round_keys(self._sampler.seed, Stream.SUBSTITUTE, ident)
        for k in range(-1, len(self._foregrounds)):
            other = int(permute(k, len(self._foregrounds), keys)[0]) if k >= 0 else number
            if not self._is_bad(self._foregrounds[other], bad):
                return other


@pipeline_def(enable_conditionals=True)
def finetune_graph(feed, size, margin, gpu, hw_decoder_load, until="warp"):
    """Read, decode, resize the part that is needed, warp it to the window; five images of a sample.

    Args:
        feed: Callable that gives the arguments of one batch: five paths as uint8 [bytes] each (foreground, alpha,
            second foreground, second alpha, background), and the fields of ``window.Windows`` in their order.
        size: Side of the square crop in pixels.
        margin: Pixels around the crop in all layers but the background.
        gpu: Whether to decode, resize and warp on the GPU.
        hw_decoder_load: Share of the JPEGs that the GPU's hardware decoder takes, 0..1.
        until: The last stage to run, "read", "decode" or "warp": to measure what each takes.

    Returns:
        The fields of ``Layers``, or in place of the images what the last stage has made of them.
    """
    dtypes = [types.UINT8] * 5 + [types.BOOL] + [types.FLOAT] * 6 + [types.INT32] * 3 + [types.FLOAT, types.INT64]
    (
        fg_path, alpha_path, second_fg_path, second_alpha_path, bg_path, combined, start, end, shape, matrix,
        bg_start, bg_end, fg_filter, alpha_filter, bg_filter, choices, ids,
    ) = fn.external_source(
        feed, num_outputs=17, batch=True, dtype=dtypes, ndim=[1] * 5 + [0] + [1, 1, 1, 2, 1, 1] + [0] * 3 + [1, 0]
    )  # fmt: skip
    fg_filter, alpha_filter, bg_filter = (
        fn.reinterpret(kind, dtype=types.INTERP_TYPE) for kind in (fg_filter, alpha_filter, bg_filter)
    )
    side = size + 2 * margin

    def decode(path, output_type):
        encoded = read(path)
        if until == "read":
            return encoded
        return fn.decoders.image(
            encoded, device="mixed" if gpu else "cpu", output_type=output_type, hw_decoder_load=hw_decoder_load
        )

    def cut(image, kind, **fill):
        if until != "warp":
            return image
        part = fn.resize(
            image, size=shape, roi_start=start, roi_end=end, roi_relative=True, interp_type=kind, antialias=True
        )
        return fn.warp_affine(
            part, matrix=matrix, size=[side, side], interp_type=types.INTERP_LINEAR, inverse_map=True, **fill
        )

    # Beyond the frame the matte is empty, and the colour that of the edge.
    fg = cut(decode(fg_path, types.RGB), fg_filter)
    alpha = cut(decode(alpha_path, types.GRAY), alpha_filter, fill_value=0)
    if combined:
        second_fg = cut(decode(second_fg_path, types.RGB), fg_filter)
        second_alpha = cut(decode(second_alpha_path, types.GRAY), alpha_filter, fill_value=0)
    else:
        second_fg, second_alpha = fg, alpha
    bg = decode(bg_path, types.RGB)
    if until == "warp":
        bg = fn.resize(
            bg, size=[size, size], roi_start=bg_start, roi_end=bg_end, roi_relative=True, interp_type=bg_filter,
            antialias=True,
        )  # fmt: skip
    outputs = fg, alpha, second_fg, second_alpha, bg
    return (*outputs, choices.gpu(), ids.gpu()) if gpu else (*outputs, choices, ids)
