"""Packaging of dptmat: ``kernels/`` and ``pipelines/`` install as ``dptmat.kernels`` and ``dptmat.pipelines``."""

from pathlib import Path

from setuptools import find_packages, setup

STACKS = {
    # torch 2.10.0 is the last release whose published wheels hold sm_70 (V100).
    "cuda12": ["torch>=2.6,<2.11", "nvidia-dali-cuda120>=2.4", "cupy-cuda12x>=13.6", "nvidia-cuda-nvrtc-cu12"],
    "cuda13": ["torch>=2.11", "nvidia-dali-cuda130>=2.4", "cupy-cuda13x>=14", "nvidia-cuda-nvrtc"],
}

# 0.11.1 is the last release for Python 3.10.
REMOTE = ["obstore>=0.11"]
APP = ["gradio>=6.31"]
ONNX = ["onnx>=1.17", "onnxscript>=0.2"]
TRACKIO = ["trackio>=0.43"]
WANDB = ["wandb>=0.31"]  # with a limit of the time that it takes at the end
PARQUET = ["pyarrow>=19.0.1"]  # older ones fail in some files that are read page by page

setup(
    name="dptmat",
    version="0.1.0",
    description="Label-free pre-training for image matting with a GPU data path: DALI, CuPy and PyTorch",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The dptmat authors",
    keywords=["image matting", "alpha matte", "trimap", "self-supervised pre-training", "DALI", "CuPy", "PyTorch"],
    project_urls={
        "Paper": "https://openaccess.thecvf.com/content/WACV2024/html/"
        "Li_Disentangled_Pre-Training_for_Image_Matting_WACV_2024_paper.html"
    },
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    package_dir={"dptmat": "dptmat", "dptmat.kernels": "kernels", "dptmat.pipelines": "pipelines"},
    packages=[*find_packages(include=["dptmat", "dptmat.*"]), "dptmat.kernels", "dptmat.pipelines"],
    package_data={
        "dptmat": ["py.typed"],
        "dptmat.app": ["*.css"],
        "dptmat.models": ["*.json"],
        "dptmat.report": ["*.html", "*.md"],
        "dptmat.kernels": ["*.cu", "*.cuh"],
    },
    install_requires=[
        "click>=8.2",
        "filelock>=3.12",
        "huggingface_hub>=1.0",  # which timm brings, too
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "numba>=0.60",
        "numpy>=1.26",
        "opencv-python-headless>=4.8",
        "pillow>=10",
        "pymatting>=1.1.12",
        "safetensors>=0.4",
        "simplejpeg>=1.8",
        "tensorboard>=2.14",
        "timm>=1.0.9",
        "tomli>=2; python_version < '3.11'",
        "tomli-w>=1",
        "torch>=2.6",
    ],
    extras_require={
        **STACKS,
        "app": APP,
        "demo": ["scikit-image>=0.22"],  # its photographs
        "onnx": ONNX,
        "parquet": PARQUET,
        "ray": ["ray>=2.40"],
        "remote": REMOTE,
        "trackio": TRACKIO,
        "wandb": WANDB,
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6",
            "ipykernel>=6",
            "mypy>=1.11",
            "nbclient>=0.8",
            "playwright>=1.40",  # drives a Chromium that is installed already
            "ruff==0.17.6",
            "setuptools>=68",
            "scikit-image>=0.22",
            "transformers>=4.50",  # its ViTMatte is what ours is compared with
            "onnxruntime>=1.20",
            *APP,
            *ONNX,
            *PARQUET,
            *REMOTE,
            *TRACKIO,
            *WANDB,
            "moto[s3,server]>=5.2",
            "webdataset>=1.0",
        ],
    },
    entry_points={"console_scripts": ["dptmat = dptmat.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: MacOS",  # all but training, whose files DALI decodes
        "Operating System :: Microsoft :: Windows",  # likewise
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
