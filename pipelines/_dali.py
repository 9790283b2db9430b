"""NVIDIA DALI, or a sentence on how to get it: the one place where it is imported."""

from dptmat.errors import UserError

try:
    from nvidia.dali import fn, math, pipeline_def, types
    from nvidia.dali.data_node import DataNode
    from nvidia.dali.pipeline import Pipeline
    from nvidia.dali.plugin.pytorch import feed_ndarray, to_torch_type
except ImportError as error:
    raise UserError(
        "photographs are decoded by NVIDIA DALI, which is not installed here; on Linux, pip install 'dptmat[cuda13]' "
        "brings it, or 'dptmat[cuda12]' for a V100 or an older driver; they work without a GPU, too"
    ) from error

__all__ = ["DataNode", "Pipeline", "feed_ndarray", "fn", "math", "pipeline_def", "to_torch_type", "types"]
