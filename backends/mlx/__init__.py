"""The MLX engine."""

import os

# Read by MLX when it is first imported: on CUDA and Apple's M5 it multiplies float32 in TF32
# otherwise, whose 10 bits of mantissa break every equality this project promises.
os.environ.setdefault("MLX_ENABLE_TF32", "0")
