"""Count what is given to a device to do, kernel launches in the main, on any machine and without a GPU.

An operator that computes counts as one launch. Views, new memory without a value and questions for a device are none.
Some operators are several kernels, as a convolution with a change of layout, and a few are fused on some devices: the
count is what the host has to do for each step, and the same on all machines.
"""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_NO_WORK = ("aten.empty", "aten.new_empty", "aten._unsafe_view", "aten.scalar_tensor", "prim.")


class Launches(TorchDispatchMode):
    """Counts the launches in its context, and what each has to do.

    Attributes:
        counts: Number of launches by the operator's name, such as ``aten.add.Tensor``.
        work: Multiply-adds and bytes of each: the multiply-adds of convolutions, matrix products and attention, and the
            bytes of all tensors that it reads or writes, each once.
    """

    def __init__(self):
        super().__init__()
        self.counts, self.work = Counter(), []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = operator(*args, **kwargs)
        name = str(operator)
        if not operator.is_view and not name.startswith(_NO_WORK):
            self.counts[name] += 1
            count = flop_registry.get(operator.overloadpacket)
            multiply_adds = count(*args, **kwargs, out_val=result) // 2 if count else 0
            self.work.append((multiply_adds, sum(map(_bytes, _distinct((args, kwargs, result))))))
        return result

    @property
    def total(self):
        return self.counts.total()


def _distinct(tree):
    return {id(x): x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)}.values()


def _bytes(tensor):
    """Bytes of a tensor's values; those of an expanded one are in memory once."""
    values = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        values *= size if stride else 1
    return values * tensor.element_size()
