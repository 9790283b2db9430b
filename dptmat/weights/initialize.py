"""What a network starts from: random weights, timm's, an encoder's checkpoint or a whole matting network's.

The names in the files are in `dptmat.weights.names`. Swin's tables of relative positions have (2w - 1)**2 rows for
windows of side w.
"""

import logging
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from dptmat.errors import UserError, few, first_line
from dptmat.models import backbone_of
from dptmat.models.matteformer import WINDOW
from dptmat.weights import vitmatte
from dptmat.weights.hub import is_address
from dptmat.weights.load import find_weights, is_finite, is_ours
from dptmat.weights.names import (
    BIAS_TABLE,
    PLAIN,
    SWIN,
    describe,
    encoder_layout,
    official_model,
    spelling,
    timm_names,
    without_index,
)
from dptmat.weights.read import read

_logger = logging.getLogger(__name__)


def initialize(network: nn.Module, name: str, init: str, load: str = "all") -> None:
    """Fill a network, in place, with the weights that its training starts from.

    What a file does not hold stays as `create_model` made it. A first convolution with other guidance keeps the
    weights of RGB; its other channels, and the rows of MatteFormer's tables for prior tokens, are drawn anew
    (Xavier-normal for the whole tensor) from PyTorch's generator of the CPU, but those of a plain transformer's patches
    are 0, as published for ViTMatte. Tables of other windows are resampled.

    Logs a few lines: what was loaded, what is new, and what of the file was left and why.

    Args:
        network: Made by `create_model`, on any device.
        name: Its name.
        init: "random" for the network as it is; "timm" for timm's weights of its encoder; or a file: of this library,
            of an original matting project, or of an encoder as Swin, SimMIM, MoBY, DINO, MAE, timm or torchvision save
            it.
        load: "encoder", or "all" for whatever the file holds.

    Raises:
        UserError: There are no such weights, they are not finite, or nothing of them fits the network's encoder.
    """
    if init == "random":
        _log("init random: all weights of %s are new", name)
        return
    weights, left, kind = _timm_weights(network, name) if init == "timm" else _file_weights(network, init)
    own = without_index(network.state_dict())
    loaded: dict[str, Tensor] = {}
    notes: dict[str, list[str]] = {}
    for key, value in weights.items():
        if key not in own or (load == "encoder" and not key.startswith("encoder.")):
            left[key] = f"not in {name}" if key not in own else "only the encoder is asked for"
            continue
        fitted, note = _fit(name, key, own[key], value)
        if fitted is None:
            left[key] = note
        else:
            loaded[key] = fitted
            notes.setdefault(note, []).append(key)
    if not any(key.startswith("encoder.") and not key.startswith("encoder.shortcut.") for key in loaded):
        raise UserError(f"`init` {init} ({kind}) holds nothing that fits the encoder of {name}; {_possible(name)}")
    if spoilt := [key for key, value in loaded.items() if not is_finite(value, own[key].dtype)]:
        raise UserError(f"`init` {init} ({kind}) holds numbers that are not finite in {few(spoilt)}; take another file")
    with torch.no_grad():
        for key, value in loaded.items():
            own[key].copy_(value)
        _settle_spectral_norms(network, loaded, left)
    new = [key for key in own if key not in loaded]
    _log("init %s (%s): %d of %d tensors of %s", init, kind, len(loaded), len(own), name)
    _log_details(loaded, notes, new, left)


def _possible(name: str) -> str:
    files = "a checkpoint of dptmat or of its original project"
    if name in SWIN:
        return f"use `init` timm, {files}, or of a Swin of the same size"
    if name in PLAIN:
        return f"use `init` timm, {files}, or of a plain transformer of the same size, as DINO's and MAE's"
    if backbone := backbone_of(name):
        return f"use `init` timm, a checkpoint of dptmat, or one of {backbone}"
    return f"its encoder is a ResNet of its own: use `init` random or {files}"


# --- where weights come from: each gives {our name: tensor}, {name in the file: why it is left}, kind of file ---


def _file_weights(network: nn.Module, path: str) -> tuple[dict[str, Tensor], dict[str, str], str]:
    if not is_address(path) and not Path(path).exists():
        raise UserError(f"`init` {path} does not exist; give random, timm, hf://user/name, or the path of a checkpoint")
    content = read(path)
    if is_ours(content):
        return without_index(find_weights(path, content)), {}, f"dptmat's {content['config']['model']}"
    state = find_weights(path, content)
    if not state:
        raise UserError(f"`init` {path} holds {describe(content)}; give a checkpoint of a network or an encoder")
    model = official_model(state)
    if model:
        spell = spelling(state)
        if model in PLAIN:
            in_channels = vitmatte.channels_of(network.state_dict(), str)
            state = vitmatte.fit_input(state, spell, in_channels or 4)
        ours = {spell(key): key for key in network.state_dict()}
        return without_index({ours.get(key, key): value for key, value in state.items()}), {}, f"official {model}"
    state, left, kind = encoder_layout(state)
    return _to_ours(network, state), left, kind


def _timm_weights(network: nn.Module, name: str) -> tuple[dict[str, Tensor], dict[str, str], str]:
    import timm

    source = (SWIN | PLAIN).get(name) or backbone_of(name)
    if source is None:
        raise UserError(f"`init` timm: timm has no weights for {name}; {_possible(name)}")
    if not timm.is_model_pretrained(source):
        raise UserError(f"`init` timm: timm has no pre-trained weights for {source!r}; use `init` random or a file")
    try:
        state = timm.create_model(source, pretrained=True).state_dict()
    except Exception as error:  # the hub raises many types
        reason = first_line(error).split(". ")[0]
        raise UserError(
            f"`init` timm: the weights of {source} cannot be downloaded ({reason}); connect, or give a file"
        ) from error
    settings = timm.get_pretrained_cfg(source)
    tag = settings.tag if settings else ""
    return _to_ours(network, state), {}, f"timm's {tag or 'weights'} of {source}"


def _to_ours(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    ours = {theirs: mine for mine, theirs in timm_names(network, state).items()}
    return {ours.get(key, key): value for key, value in state.items()}


# --- how a tensor fits ---


def _fit(name: str, key: str, target: Tensor, value: Tensor) -> tuple[Tensor | None, str]:
    """Return the value in the shape of the network's ``target`` and what was changed, or None and why it does not fit.

    The rows of a table stand for relative positions, all of them but in MatteFormer's.
    """
    if value.shape == target.shape:
        return value, ""
    full = torch.empty(target.shape, dtype=target.dtype)
    if key.endswith(BIAS_TABLE) and value.ndim == 2 and value.shape[1] == target.shape[1]:
        spatial, side = (2 * WINDOW - 1) ** 2 if name in SWIN else len(target), math.isqrt(len(value))
        if side**2 == len(value) and side % 2:
            note = []
            if len(value) != spatial:
                note.append(
                    f"resampled from {side} x {side} to {math.isqrt(spatial)} x {math.isqrt(spatial)} positions"
                )
                value = resample_table(value, spatial)
            if len(target) > spatial:
                nn.init.xavier_normal_(full)
                note.append("new rows for prior tokens")
            full[:spatial] = value
            return full, ", ".join(note)
    shape, wanted = list(value.shape), list(target.shape)
    images = {3, 4, 6}  # channels of an image alone, with a mask, with a trimap
    if (
        value.ndim == 4 == target.ndim
        and {shape[1], wanted[1]} <= images
        and shape[:1] + shape[2:] == wanted[:1] + wanted[2:]
    ):
        plain = name.startswith(("vitmatte_", "vit_")) and key.startswith("encoder.")
        (nn.init.zeros_ if plain else nn.init.xavier_normal_)(full)
        full[:, :3] = value[:, :3]
        new = "zeros" if plain else "new channels"
        return full, f"RGB kept, {new} for the guidance" if wanted[1] > 3 else "RGB kept"
    return None, f"of another shape ({shape} instead of {wanted})"


def resample_table(table: Tensor, rows: int) -> Tensor:
    """Resample a table of relative positions, float [(2w-1)**2, heads], to another window: float32 [rows, heads]."""
    side, wanted = math.isqrt(len(table)), math.isqrt(rows)
    grid = table.float().T.reshape(1, -1, side, side)
    return interpolate(grid, (wanted, wanted), mode="bicubic", align_corners=False).flatten(2)[0].T


def _settle_spectral_norms(network: nn.Module, loaded: dict[str, Tensor], left: dict[str, str]) -> None:
    """Where a normalized convolution was widened, find the vectors of the new weight, since the file's do not fit."""
    end = ".parametrizations.weight.0._v"
    own = network.state_dict()
    for key in [key for key in left if key.endswith(end)]:
        weight_name = key.replace(".0._v", ".original")
        if key in own and weight_name in loaded:
            matrix, v = own[weight_name].flatten(1), own[key]
            for _ in range(20):
                u = normalize(matrix @ v, dim=0)
                v = normalize(matrix.T @ u, dim=0)
            own[key].copy_(v)
            own[key.replace("._v", "._u")].copy_(u)
            loaded[key] = v
            del left[key]


# --- what is logged ---


def _log(line: str, *values: object) -> None:
    """Log at info; of the processes of a run, which all load the same, only in the first."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    first = not distributed or torch.distributed.get_rank() == 0
    _logger.log(logging.INFO if first else logging.DEBUG, line, *values)


def _log_details(
    loaded: dict[str, Tensor],
    notes: dict[str, list[str]],  # names of those that were changed, by what was changed
    new: list[str],
    left: dict[str, str],  # why a name of the file was left; the details of one name are in brackets
) -> None:
    changed = [f"{len(keys)} {note}" for note, keys in notes.items() if note]
    _log("  loaded: %s%s", _grouped(loaded), f"; of these {', '.join(changed)}" if changed else "")
    if new:
        _log("  new:    %s", _grouped(new))
    reasons: dict[str, list[str]] = {}
    for key, reason in left.items():
        reasons.setdefault(reason.partition(" (")[0], []).append(key)
    for reason, keys in reasons.items():
        details = left[keys[0]].partition(" (")[2].rstrip(")")
        _log("  left:   %s: %s%s", _grouped(keys), reason, f", such as {keys[0]} {details}" if details else "")


def _grouped(keys: Iterable[str]) -> str:
    """Count names by what they begin with: "encoder.layers 165, decoder 12"."""
    groups: dict[str, int] = {}
    for key in keys:
        parts = key.split(".")
        group = ".".join(parts[:2]) if parts[0] == "encoder" else parts[0]
        groups[group] = groups.get(group, 0) + 1
    return ", ".join(f"{group} {count}" for group, count in groups.items())
