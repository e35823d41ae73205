"""The device that torch's tests open models on."""

from __future__ import annotations

import os

import torch

DEVICE = os.environ.get("THREEARC_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
"""CUDA where there is one, with the same tests as on a CPU: float32, and TF32 off as the engine
sets it. ``THREEARC_TEST_DEVICE=cpu`` takes the CPU all the same."""
