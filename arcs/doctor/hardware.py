"""GPUs that the machine has, whether or not anything can use them."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_NVIDIA_PCI, _DISPLAY_CLASS = "0x10de", "0x03"
"""PCI vendor, and the first byte of the class of display controllers."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, and who said that it is there."""

    maker: str
    """``nvidia``, ``amd`` or ``apple``."""
    name: str
    memory: int | None
    """Bytes; None where it is not known, or shared with the CPU."""
    driver: str | None
    source: str

    def as_dict(self) -> dict[str, Any]:
        """For the document."""
        return asdict(self)


def find_gpus(proc: Path = Path("/proc"), sys_root: Path = Path("/sys")) -> list[Gpu]:
    """NVIDIA, AMD (with its compute driver) and Apple GPUs. Looks; changes nothing."""
    nvidia = _from_nvidia_smi() or _from_driver(proc) or _from_pci(sys_root)
    return nvidia + _amd(sys_root) + _apple()


def nvidia_smi_error() -> str | None:
    """One line when nvidia-smi is there and fails, as it does without a working driver."""
    done = _run("nvidia-smi", "-L")
    if done is None or done.returncode == 0:
        return None
    return " ".join((done.stdout + done.stderr).split())[:200] or f"exit {done.returncode}"


def _from_nvidia_smi() -> list[Gpu]:
    query = "--query-gpu=name,memory.total,driver_version"
    done = _run("nvidia-smi", query, "--format=csv,noheader,nounits")
    if done is None or done.returncode != 0:
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    return [
        Gpu("nvidia", row[0], int(row[1]) << 20 if row[1].isdigit() else None, row[2], "nvidia-smi")
        for row in rows
        if len(row) == 3
    ]


def _from_driver(proc: Path) -> list[Gpu]:
    """As NVIDIA's kernel module lists them; a container may lack nvidia-smi."""
    found = []
    for file in sorted((proc / "driver/nvidia/gpus").glob("*/information")):
        lines = (line.partition(":") for line in file.read_text(errors="replace").splitlines())
        values = {key.strip(): value.strip() for key, _, value in lines}
        name = values.get("Model", "NVIDIA GPU")
        found.append(Gpu("nvidia", name, None, None, "/proc/driver/nvidia"))
    return found


def _from_pci(sys_root: Path) -> list[Gpu]:
    """Cards on the bus, which are there without any driver."""
    cards = [
        device.name
        for device in sorted((sys_root / "bus/pci/devices").glob("*"))
        if _text(device / "vendor") == _NVIDIA_PCI
        and _text(device / "class").startswith(_DISPLAY_CLASS)
    ]
    return [Gpu("nvidia", f"NVIDIA card at {at}", None, None, "PCI, no driver") for at in cards]


def _amd(sys_root: Path) -> list[Gpu]:
    """GPUs of AMD's compute driver: nodes of its topology that have SIMD units."""
    found = []
    for node in sorted((sys_root / "class/kfd/kfd/topology/nodes").glob("*")):
        pairs = (line.split() for line in _text(node / "properties").splitlines())
        properties = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        if properties.get("simd_count", "0") != "0":
            name = _text(node / "name") or "AMD GPU"
            found.append(Gpu("amd", name, None, None, "kfd"))
    return found


def _apple() -> list[Gpu]:
    """Apple Silicon, also where this Python is an x86 one under Rosetta."""
    if platform.system() != "Darwin":
        return []
    done = _run("sysctl", "-n", "machdep.cpu.brand_string")
    brand = done.stdout.strip() if done else ""
    if platform.machine() != "arm64" and not brand.startswith("Apple"):
        return []
    return [Gpu("apple", f"{brand or 'Apple Silicon'} GPU", None, None, "sysctl")]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None  # not installed, or it hangs: then nothing can be learnt from it
