"""Count what is given to a device to do, kernel launches in the main, on any machine and without a GPU.

An operator that computes counts as one launch. Views, new memory without a value and questions for a device are none.
Some operators are several kernels, as a convolution with a change of layout, and a few are fused on some devices: the
count is what the host has to do for each step, and the same on all machines.
"""

from collections import Counter

from torch.utils._python_dispatch import TorchDispatchMode

_NO_WORK = ("aten.empty", "aten.new_empty", "aten._unsafe_view", "aten.scalar_tensor", "prim.")


class Launches(TorchDispatchMode):
    """Counts the launches in its context.

    Attributes:
        counts: Number of launches by the operator's name, such as ``aten.add.Tensor``.
    """

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = str(operator)
        if not operator.is_view and not name.startswith(_NO_WORK):
            self.counts[name] += 1
        return operator(*args, **(kwargs or {}))

    @property
    def total(self):
        return self.counts.total()
