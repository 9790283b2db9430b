"""Label-free pre-training for image matting: a GPU data path, the networks, and the operators by themselves."""

from dptmat import losses, metrics
from dptmat.kernels import Batch, composite, random_alpha, random_trimap, synthesize
from dptmat.models import create_model

__all__ = ["Batch", "composite", "create_model", "losses", "metrics", "random_alpha", "random_trimap", "synthesize"]
