# Everything that training needs but the driver:
#
#     docker build -t dptmat .                            # CUDA 13: Turing (2018) and later
#     docker build -t dptmat --build-arg STACK=cuda12 .   # a V100, or an older driver
#     docker run --rm --gpus all --ipc host --user "$(id -u):$(id -g)" -v /data:/data \
#         dptmat pretrain --data /data/imagenet/train --out /data/runs/first --resume auto
FROM python:3.12-slim-bookworm

ARG STACK=cuda13

# torch.compile wants a compiler.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/dptmat
COPY setup.py pyproject.toml README.md LICENSE ./
COPY dptmat dptmat
COPY kernels kernels
COPY pipelines pipelines
COPY recipes recipes
RUN pip install --no-cache-dir ".[${STACK},remote,parquet]"

# Where caches of kernels and of the Hub go, whoever runs it.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["dptmat"]
