"""The paper's published result files: where they lie, how large they are, what they hash to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.errors import UserError

REPOSITORY = "tinmanlabsl/disposition-distillation"
COMMIT = "ed3d9219690e53661857c814f3be5069c095ec30"

SUMS: Mapping[str, tuple[int, str]] = {
    "LICENSE": (
        1_068,
        "a7089b664380cb0a71cf9ebf2692900bf5dbea272e9f118e82f8acd128473963",
    ),
    "alpha_sweep.json": (
        3_011_209,
        "a3745be13adeef3cfbd73562d524c675bc7fe24ff58284eea4255df2de6dd48e",
    ),
    "baseline_disposition_profile.json": (
        1_329_422,
        "1c2803199d37299e75defea50e2f351d33ad65f45268251f750916d2d8e924df",
    ),
    "baseline_qwen35_0.8b_v2_disposition_profile.json": (
        168_787,
        "1e7849241b246116ae96e442d17b21b789929d37f2bf17ff923e9b8a37f5f5e0",
    ),
    "baseline_smollm_v2_disposition_profile.json": (
        134_213,
        "d41c22958d08a1bc6f7fdf4a436c4386518a6bce0213e10fa699955f688c4da7",
    ),
    "disposition_probe_sweep.json": (
        2_863,
        "206e275721828fa7109497e1e02ad4c0aa8fd6e34b0e7bc43f536bf59f5891fe",
    ),
    "eval_baseline.json": (
        283_991,
        "7dddf80194804c8fe6bcaa8f4a980f7b07b24eaf98494e2e53a86b301e4ae90e",
    ),
    "eval_full_ddv2.json": (
        273_290,
        "23be53da1e4ed7a67debf7175406c78ee2086f50162bda2a6b2a22c893b2556d",
    ),
    "judge_v4_fresh.json": (
        498_531,
        "479745a549c75d6e9c3c3324fbb34c6b91b3c5b68a58df40c72e7a2b20800a02",
    ),
    "judge_v4_step16.json": (
        276_328,
        "24a33185010a2143a6373610d63105df6f64c5120f9f8b1dff7e65b7b4906747",
    ),
    "path_b_attribution_gemma4.json": (
        55_543,
        "7452b458267fa77c47405d822e4dcfa5fa30e16844fa7da7c361d64d1b1b8fdb",
    ),
    "path_b_attribution_qwen35_0.8b.json": (
        15_182,
        "ac1f34a87f50cb541f9239732b1c64b6686bdba9d055806b5812984cb00a5b6b",
    ),
    "pca_rank.json": (
        1_172,
        "4c0b88fc17278df8ca6bfa438a5df0e55f45641b7fd7f89494b6ef899b661bbd",
    ),
    "phase0_audit/eval_results.json": (
        426,
        "283a56d1fcd7387ac372cef1c7833fb1343ca50cb93c24332be0d57fbd6daa01",
    ),
    "phase0_audit/humaneval_baseline.json": (
        9_875,
        "2977cbc7670cc7eb5570119e46bc080fc2989eb78198eb1df93f07131e30a0f5",
    ),
    "phase0_audit/humaneval_dd_fp16.json": (
        9_846,
        "e1e89c1c9b9711c650a5315720c958930e6e5a7f9817f603da824f071d686404",
    ),
    "phase0_audit/mcas_details.json": (
        77_311,
        "b80c44e08cb1fc0b874bd75b75e0031e7ed6498c4d8cc85ce2493676b6f409c5",
    ),
    "probe_multilayer.json": (
        1_259,
        "ee9ecf0d1835428ccdd42fd3bd31393bde0152d4e1a6ecf4d99e2008d1e1ddd8",
    ),
    "smollm_factual_probe.json": (
        383,
        "04bad28669d628f40be3573dd447ae34ea04a7eed0c075552d2922d5987aa35e",
    ),
    "smollm_fresh_features.npz": (
        1_581_312,
        "b147f72a5b3f9f2d013c8ea393b8a84fbbad3c32bf11ea0408bf8af5f3b7d116",
    ),
    "smollm_fresh_judged_gold.json": (
        3_130,
        "01212013a847415224a2e81cca9daee638cb468b3165c3b9a68325bcc70240b4",
    ),
    "smollm_step16_features.npz": (
        820_104,
        "c5c4828d571089466c5ce8e59bfbaacb6b26c7bc05578d7a0abc192e3d634759",
    ),
    "v1_full_fresh_judged_gold.json": (
        3_131,
        "b1c5fc4fc54738ca33c33b1ffdde9e7068c231dda320f4d38c84f574bea8ff2f",
    ),
    "v1_full_v2.json": (
        1_795,
        "1ea333a7c639e9357b6a6fe77a8bb312054fe20aef3cb39d1d400d1281831067",
    ),
}
"""Size in bytes and SHA-256 by name. The licence comes with the files it covers."""


@dataclass(frozen=True)
class PublishedFile:
    """One file as it is at :data:`COMMIT`."""

    name: str
    """Path inside a folder of artifacts."""
    path: str
    """Path inside the paper's repository."""
    size: int
    """Bytes."""
    sha256: str

    def matches(self, content: bytes) -> bool:
        """Whether ``content`` is the published file."""
        return hashlib.sha256(content).hexdigest() == self.sha256


@dataclass(frozen=True)
class Mismatch:
    """A file that is not there, or not the published one."""

    name: str
    problem: str
    """``absent`` or ``differs``."""

    def __str__(self) -> str:
        if self.problem == "absent":
            return f"{self.name} is not there: what rests on it is not determined"
        return f"{self.name} is not the published file: its SHA-256 differs"


def _path_in_repository(name: str) -> str:
    folder, _, rest = name.partition("/")
    if rest:
        return f"{folder}/results/{rest}"
    return name if name == "LICENSE" else f"eval/results/{name}"


FILES: tuple[PublishedFile, ...] = tuple(
    PublishedFile(name, _path_in_repository(name), *entry) for name, entry in SUMS.items()
)
BY_NAME: Mapping[str, PublishedFile] = {file.name: file for file in FILES}


def locate(folder: Path, name: str) -> Path | None:
    """Path of a published file in ``folder``, a folder of artifacts or a checkout; None if absent.

    Raises KeyError for a name that is not in :data:`FILES`.
    """
    file = BY_NAME[name]
    candidates = (folder / file.name, folder / file.path)
    return next((path for path in candidates if path.is_file()), None)


def check_sums(folder: Path) -> list[Mismatch]:
    """Every published file that is absent from ``folder`` or has other content there.

    Raises UserError for a file that cannot be read.
    """
    problems = ((file.name, _problem(folder, file)) for file in FILES)
    return [Mismatch(name, problem) for name, problem in problems if problem is not None]


def _problem(folder: Path, file: PublishedFile) -> str | None:
    path = locate(folder, file.name)
    if path is None:
        return "absent"
    try:
        return None if file.matches(path.read_bytes()) else "differs"
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); change its rights") from None
