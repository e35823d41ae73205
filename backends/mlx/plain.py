"""What ``threearc bench`` compares the MLX engine with: mlx-lm's own calls, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from backends.interface import Float32, LanguageModel
from backends.mlx.library import open_file_limit_kept
from backends.mlx.model import MlxModel, load_unchanged

with open_file_limit_kept():
    from mlx_lm.generate import BatchGenerator as _BatchGenerator

BatchGenerator: Any = _BatchGenerator
