"""The GPU data path: NVIDIA DALI graphs from files to augmented views."""
