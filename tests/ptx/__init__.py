"""Run the PTX that NVRTC makes of the kernels on the host, where no GPU is."""
