"""What a graph hands over for one batch: the types of the two tasks, which need no DALI to be named."""

from typing import NamedTuple

import torch


class Views(NamedTuple):
    """What ``synthesize`` needs of one batch."""

    views: torch.Tensor  # uint8 [N, H, W, 3] RGB
    color: torch.Tensor  # float32 [N, 3, 3]
    ids: torch.Tensor  # int64 [N]


class Pairs(NamedTuple):
    """What a batch of pairs of photographs is composed of: see `dptmat.pipelines.pretrain_pairs.PairSource`."""

    fg: torch.Tensor  # uint8 [N, H, W, 3] RGB
    bg: torch.Tensor  # uint8 [N, H, W, 3] RGB, each photograph as it looks behind another
    pairing: torch.Tensor  # int64 [N]: which of ``bg`` is behind each sample
    color: torch.Tensor  # float32 [N, 2, 3, 3] of fg and bg, to be multiplied with (R, G, B); or in HSV [N, 2, 3]
    move: torch.Tensor  # int64 [N, 2, 3], as `dptmat.kernels.warp` takes it
    interpolation: torch.Tensor  # int64 [N, 2] of foreground and alpha, likewise
    ids: torch.Tensor  # int64 [N]


class Layers(NamedTuple):
    """What one batch is composed of; W is the crop's side with its margins."""

    fg: torch.Tensor  # uint8 [N, W, W, 3] RGB
    alpha: torch.Tensor  # uint8 [N, W, W, 1]
    second_fg: torch.Tensor  # uint8 [N, W, W, 3]; without a meaning where there is no second foreground
    second_alpha: torch.Tensor  # uint8 [N, W, W, 1]; likewise
    bg: torch.Tensor  # uint8 [N, size, size, 3], without margins
    choices: torch.Tensor  # float32 [N, 8], see ``crop_window.CHOICES``
    ids: torch.Tensor  # int64 [N]
