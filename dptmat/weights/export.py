"""Weights for other libraries: the encoder for timm, the whole network as ONNX, ViTMatte for its users elsewhere."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import torch
from torch import nn
from torch.nn.utils import parametrize

from dptmat.defaults import MEAN, STD
from dptmat.errors import UserError, first_line
from dptmat.files import write_output
from dptmat.models import backbone_of
from dptmat.models.layers import MattingNetwork
from dptmat.weights import vitmatte
from dptmat.weights.load import load_network
from dptmat.weights.names import PLAIN, SWIN, timm_names

_logger = logging.getLogger(__name__)

TRANSFORMERS_FILES = ("model.safetensors", "config.json", "preprocessor_config.json")


def to_timm(path: str | Path, out: str | Path, official: str | None = None) -> None:
    """Write the encoder of a network as a file that timm loads as its own.

    Logs the call of timm that loads it, and what timm adds or leaves out.

    Args:
        path, official: As for `dptmat.weights.load.load_network`.
        out: The file to write; ends in ``.safetensors``.

    Raises:
        UserError: The file cannot be loaded, the encoder is not one of timm, or ``out`` has another ending.
        OSError: The file cannot be written.
    """
    import timm
    from safetensors.torch import save

    if Path(out).suffix != ".safetensors":
        raise UserError(f"{out} must end in .safetensors, by which timm knows the format")
    network, config = load_network(path, official=official)
    name = config["model"]
    backbone = (SWIN | PLAIN).get(name, "").split(".")[0] or backbone_of(name)
    if backbone is None:
        those = "those of unet_*, vit_*, matteformer and vitmatte are"
        raise UserError(f"{path} holds {name}, whose encoder is not one of timm; {those}")
    state = timm.create_model(backbone, in_chans=network.in_channels, num_classes=0).state_dict()
    ours = network.state_dict()
    filled: set[str] = set()
    for mine, theirs in timm_names(network, list(state)).items():
        if theirs in state:
            value = ours[mine]
            if value.shape[1:] == state[theirs].shape[1:] and value.ndim:  # a table without the rows of prior tokens
                value = value[: len(state[theirs])]
            state[theirs] = value.contiguous()
            filled.add(theirs)
    if name in SWIN:  # the norm of the last stage's output, which is where timm's Swin ends
        state.update({f"norm.{part}": ours[f"encoder.norm3.{part}"] for part in ("weight", "bias")})
        filled |= {"norm.weight", "norm.bias"}
    content = save(state)
    write_output(out, lambda file: file.write(content))
    call = '  timm.create_model("%s", in_chans=%d, num_classes=0, checkpoint_path="%s")'
    _logger.info("%s: %d tensors; load them by", out, len(filled))
    _logger.info(call, backbone, network.in_channels, out)
    if len(filled) < len(state):
        _logger.info("not in the network, as new in timm: %s", ", ".join(name for name in state if name not in filled))
    for networks, missing, kind in (
        (SWIN, "prior tokens", "Swin"),
        (PLAIN, "windows, relative positions and necks", "transformer"),
    ):
        if name in networks:
            line = "left out: the %s, which timm's %s does not have; its features differ from the network's"
            _logger.info(line, missing, kind)


def plain_weights(network: nn.Module) -> nn.Module:
    """Replace spectral normalization, in place, by the normalized weights themselves; for evaluation only."""
    network.eval()
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return network


def to_onnx(path: str | Path, out: str | Path, official: str | None = None) -> None:
    """Write a whole network as ONNX, for any batch, height and width, the last two multiples of 32.

    Its input is ``x`` as at the head of `dptmat.models`, its outputs are the alphas by their names; it
    logs both.

    Args:
        path, official: As for `dptmat.weights.load.load_network`.
        out: The file to write.

    Raises:
        UserError: The packages of ``dptmat[onnx]`` are missing, the file cannot be loaded, or PyTorch cannot express
            the network as ONNX.
        OSError: The file cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"ONNX needs the package {package}; install it by pip install 'dptmat[onnx]'")
    network, config = load_network(path, official=official)
    # Unlike sides, and more than one window of MatteFormer at /32: equal sizes would be taken for the same size.
    x = torch.zeros(2, network.in_channels, 480, 736)
    sizes = {
        0: torch.export.Dim("batch", max=1024),
        2: 32 * torch.export.Dim("rows", max=256),
        3: 32 * torch.export.Dim("columns", max=256),
    }
    names = list(network.outputs)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # on the exporter's own insides
            program = torch.onnx.export(
                plain_weights(network), (x,), dynamo=True, dynamic_shapes=(sizes,), opset_version=18,
                input_names=["x"], output_names=names, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises many types
        raise UserError(f"PyTorch cannot write {config['model']} as ONNX: {first_line(error)}") from error
    assert program is not None  # for the type checker: without dynamo there is none
    content = program.model_proto.SerializeToString()
    write_output(out, lambda file: file.write(content))
    shape = f"[N, {network.in_channels}, 32 h, 32 w]"
    _logger.info("%s: %s; x %s -> %s", out, config["model"], shape, ", ".join(names))


def to_vitmatte(path: str | Path, out: str | Path, official: str | None = None) -> None:
    """Write a ViTMatte as its project does: a file of its state dict, for the published input of 4 channels.

    Args:
        path, official: As for `dptmat.weights.load.load_network`.
        out: The file to write.

    Raises:
        UserError: The file cannot be loaded, is no ViTMatte, or no weights for 4 channels give the same alpha.
        OSError: The file cannot be written.
    """
    network, name = _load_vitmatte(path, official)
    state = vitmatte.published_input(network.state_dict()) if network.in_channels == 6 else None
    if state is None:
        raise UserError(
            f"{path} holds a {name} whose {network.in_channels} input channels are no image of the published 4, as "
            "after any training here; convert it to transformers instead, which takes any number of them"
        )
    state = {vitmatte.published_name(key): value.contiguous() for key, value in state.items()}
    write_output(out, lambda file: torch.save({"model": state}, file))
    _logger.info("%s: %s of 4 channels, %d tensors", out, name, len(state))


def to_transformers(path: str | Path, out: str | Path, official: str | None = None) -> None:
    """Write a ViTMatte as a folder that ``VitMatteForImageMatting.from_pretrained`` of transformers loads.

    Its input has the published 4 channels where these give the same alpha, and else those of the network. It logs
    which.

    Args:
        path, official: As for `dptmat.weights.load.load_network`.
        out: The folder to write into; made if missing.

    Raises:
        UserError: The file cannot be loaded, or is no ViTMatte.
        OSError: The folder cannot be written.
    """
    from safetensors.torch import save

    network, name = _load_vitmatte(path, official)
    state, in_channels = network.state_dict(), network.in_channels
    published = vitmatte.published_input(state) if in_channels == 6 else None
    if published is not None:
        state, in_channels = published, 4
    tensors = {vitmatte.transformers_name(key): value.contiguous() for key, value in state.items()}
    files = {
        TRANSFORMERS_FILES[0]: save(tensors, {"format": "pt"}),
        TRANSFORMERS_FILES[1]: _json(vitmatte.transformers_config(state["encoder.pos_embed"].shape[2], in_channels)),
    }
    if in_channels == 4:  # the default normalisation of transformers is not the one that the weights are trained with
        processor = {"image_processor_type": "VitMatteImageProcessor", "image_mean": MEAN, "image_std": STD}
        files[TRANSFORMERS_FILES[2]] = _json(processor)
    Path(out).mkdir(exist_ok=True)
    for file_name, content in files.items():
        write_output(Path(out) / file_name, partial(_write, content))
    _logger.info('%s: %s; VitMatteForImageMatting.from_pretrained("%s")', out, name, out)
    if in_channels == 6:
        _logger.info(
            "its pixel_values have 6 channels, RGB and the one-hot trimap (background, unknown, foreground), not the "
            "published 4, of which these weights are no image"
        )


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _load_vitmatte(path: str | Path, official: str | None) -> tuple[MattingNetwork, str]:
    network, config = load_network(path, official=official)
    if config["model"] not in PLAIN:
        raise UserError(f"{path} holds {config['model']}; this form is for vitmatte_small and vitmatte_base alone")
    return network, config["model"]
