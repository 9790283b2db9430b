"""Compile a network by its blocks, where it stands."""

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

_VARIANTS = 128  # of one block's code: by channels, sizes of maps, stochastic depth, and its own spectral norms


def compile_blocks(network: nn.Module) -> int:
    """Compile the blocks of a network with ``torch.compile``, each alone, for the shapes that come.

    Blocks are the smallest parts that stand in a sequence or a list of modules and are more than one layer: the blocks
    of a stage, the branches of the shortcuts. They are compiled where they stand, so that the weights keep their names,
    and equal blocks share what was compiled. Nothing is compiled before its first call.

    Returns:
        Number of the blocks.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _VARIANTS)
    rows = [module for module in network.modules() if isinstance(module, (nn.Sequential, nn.ModuleList))]
    parts = {part for row in rows for part in row if _is_composed(part)}
    smallest = [part for part in parts if parts.isdisjoint(inner for inner in part.modules() if inner is not part)]
    for part in smallest:
        part.compile(dynamic=False)
    return len(smallest)


def cause_of_failure(error: RuntimeError) -> BaseException | None:
    """Return what the compiler failed of; None where the error is none of its own."""
    failed = isinstance(error, torch._dynamo.exc.TorchDynamoException)
    return getattr(error, "inner_exception", error) if failed else None


def _is_composed(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and not is_parametrized(module)
