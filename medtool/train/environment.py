"""On what a training ran: versions, device, memory, threads; for the record, never compared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

import torch

from medtool import __version__
from medtool.devices import describe_devices

FORMAT = "medtool-environment"
FORMAT_VERSION = 1
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "Pillow", "opencv-python-headless", "safetensors")


def environment_of(device: str, precision: str, *, n_processes: int = 1) -> dict[str, Any]:
    """Return what a result may depend on beside its options. No name of the machine or its user is in it."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None  # type: ignore[no-untyped-call]
    return {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "medtool": __version__,
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": versions,
        "device": device,
        "precision": precision,
        "processes": n_processes,
        "devices": describe_devices(),
        "cuda": torch.version.cuda,
        "cudnn": cudnn,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
