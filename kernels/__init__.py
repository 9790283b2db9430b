"""Views to trimap, alpha, composite: ``torch.library`` operators for CPU (numba) and CUDA (CuPy) tensors."""

from .alpha import random_alpha
from .batch import Batch
from .composite import composite
from .synthesize import synthesize
from .trimap import random_trimap

__all__ = ["Batch", "composite", "random_alpha", "random_trimap", "synthesize"]
