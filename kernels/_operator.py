"""Registration of the ``torch.library`` operators; leaner per call than ``torch.library.custom_op``."""

import torch

_LIBRARY = torch.library.Library("dptmat", "FRAGMENT")  # the operators live as long as it does


def register(name, cpu, cuda, fake, mutates=()):
    """Register ``dptmat::name`` and return it.

    Args:
        name: Of the operator.
        cpu: Runs on CPU tensors; its annotations are the operator's schema.
        cuda: Runs on CUDA tensors.
        fake: Makes the empty outputs, for fake and meta tensors.
        mutates: Names of the arguments that it writes to.
    """
    _LIBRARY.define(name + torch.library.infer_schema(cpu, mutates_args=mutates))
    _LIBRARY.impl(name, cpu, "CPU")
    _LIBRARY.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"dptmat::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.dptmat, name).default
