"""Weights for other libraries: the encoder for timm, the whole network as ONNX."""

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrize

from dptmat.errors import UserError
from dptmat.files import write_whole
from dptmat.weights.load import load_network
from dptmat.weights.names import SWIN, timm_names


def to_timm(path: str | Path, out: str | Path, official: str | None = None) -> str:
    """Write the encoder of a network as a file that timm loads as its own.

    Args:
        path, official: As for `dptmat.weights.load.load_network`.
        out: The file to write; ends in ``.safetensors``.

    Returns:
        Lines on what was written: the call of timm that loads it, and what timm adds or leaves out.

    Raises:
        UserError: The file cannot be loaded, the encoder is not one of timm, or ``out`` has another ending.
    """
    import timm
    from safetensors.torch import save

    if Path(out).suffix != ".safetensors":
        raise UserError(f"{out} must end in .safetensors, by which timm knows the format")
    network, config = load_network(path, official=official)
    name = config["model"]
    backbone = SWIN.get(name, "").split(".")[0] or name.removeprefix("unet_")
    if name not in SWIN and not name.startswith("unet_"):
        raise UserError(
            f"{path} holds {name}, whose encoder is not one of timm; --to timm takes unet_* and matteformer"
        )
    state = timm.create_model(backbone, in_chans=network.in_channels, num_classes=0).state_dict()
    ours, filled = network.state_dict(), set()
    for mine, theirs in timm_names(network, list(state)).items():
        if theirs in state:
            value = ours[mine]
            if value.shape[1:] == state[theirs].shape[1:] and value.ndim:  # a table without the rows of prior tokens
                value = value[: len(state[theirs])]
            state[theirs], filled = value.contiguous(), filled | {theirs}
    if name in SWIN:  # the norm of the last stage's output, which is where timm's Swin ends
        state.update({f"norm.{part}": ours[f"encoder.norm3.{part}"] for part in ("weight", "bias")})
        filled |= {"norm.weight", "norm.bias"}
    content = save(state)
    write_whole(out, lambda file: file.write(content))
    lines = [
        f"{out}: {len(filled)} tensors; load them by",
        f'  timm.create_model("{backbone}", in_chans={network.in_channels}, num_classes=0, checkpoint_path="{out}")',
    ]
    if len(filled) < len(state):
        lines.append("not in the network, as new in timm: " + ", ".join(name for name in state if name not in filled))
    if name in SWIN:
        lines.append(
            "left out: the prior tokens, which timm's Swin does not have; its features differ from the network's"
        )
    return "\n".join(lines)


def plain_weights(network: nn.Module) -> nn.Module:
    """Replace spectral normalisation, in place, by the normalised weights themselves; for evaluation only."""
    network.eval()
    for module in network.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return network


def to_onnx(path: str | Path, out: str | Path, official: str | None = None) -> str:
    """Write a whole network as ONNX, for any batch, height and width, the last two multiples of 32.

    Its input is ``x`` as at the head of `dptmat.models`, its outputs are the alphas by their names.

    Args:
        path, official: As for `dptmat.weights.load.load_network`.
        out: The file to write.

    Returns:
        One line on what was written.

    Raises:
        UserError: The packages of ``dptmat[onnx]`` are missing, the file cannot be loaded, or PyTorch cannot express
            the network as ONNX.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--to onnx needs the package {package}; install it by pip install 'dptmat[onnx]'")
    network, config = load_network(path, official=official)
    # Unlike sides, and more than one window of MatteFormer at /32: equal sizes would be taken for the same size.
    x = torch.zeros(2, network.in_channels, 480, 736)
    sizes = {
        0: torch.export.Dim("batch", max=1024),
        2: 32 * torch.export.Dim("rows", max=256),
        3: 32 * torch.export.Dim("columns", max=256),
    }
    names = ["alpha_os1"] if config["model"] == "gca" else ["alpha_os1", "alpha_os4", "alpha_os8"]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # on the exporter's own insides
            program = torch.onnx.export(
                plain_weights(network), (x,), dynamo=True, dynamic_shapes=(sizes,), opset_version=18,
                input_names=["x"], output_names=names, verbose=False,
            )  # fmt: skip
    except Exception as error:  # the exporter raises many types
        raise UserError(f"PyTorch cannot write {config['model']} as ONNX: {str(error).splitlines()[0]}") from error
    content = program.model_proto.SerializeToString()
    write_whole(out, lambda file: file.write(content))
    return f"{out}: {config['model']}; x [N, {network.in_channels}, 32 h, 32 w] -> {', '.join(names)}"
