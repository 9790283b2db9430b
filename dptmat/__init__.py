"""Label-free pre-training for image matting: a GPU data path, the networks, and the operators by themselves.

What is imported from here is loaded when it is first used, so that ``import dptmat`` need not wait for PyTorch.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dptmat import losses, metrics
    from dptmat.inference import predict_alpha
    from dptmat.kernels import Batch, composite, random_alpha, random_trimap, synthesize
    from dptmat.models import create_model
    from dptmat.tasks.evaluate import evaluate
    from dptmat.tasks.finetune import finetune
    from dptmat.tasks.predict import predict
    from dptmat.tasks.pretrain import pretrain
    from dptmat.tasks.push import push_to_hub
    from dptmat.weights.load import load_network
    from dptmat.weights.pretrained import from_pretrained

_HOMES = {
    "Batch": "kernels",
    "composite": "kernels",
    "create_model": "models",
    "evaluate": "tasks.evaluate",
    "finetune": "tasks.finetune",
    "from_pretrained": "weights.pretrained",
    "load_network": "weights.load",
    "predict": "tasks.predict",
    "predict_alpha": "inference",
    "pretrain": "tasks.pretrain",
    "push_to_hub": "tasks.push",
    "random_alpha": "kernels",
    "random_trimap": "kernels",
    "synthesize": "kernels",
}
_MODULES = ("losses", "metrics")

__all__ = [
    "Batch", "composite", "create_model", "evaluate", "finetune", "from_pretrained", "load_network", "losses",
    "metrics", "predict", "predict_alpha", "pretrain", "push_to_hub", "random_alpha", "random_trimap", "synthesize",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.metadata.version("dptmat")
    elif name in _MODULES:
        return importlib.import_module(f"dptmat.{name}")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"dptmat.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'dptmat' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
