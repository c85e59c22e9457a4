"""Cards: what they can do and what programs see of their memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, nearest, say
from tunedeck.core.toml import parse_toml

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU, or of CPU; rates are peaks without sparsity."""

    name: str
    names: tuple[str, ...]
    memory_gb: float
    visible_bytes: float
    """Memory that a program can allocate, its context included."""
    tensor_flops_per_s: float
    """16-bit matrix products; on a GPU without tensor cores its plain 16-bit rate."""
    fp32_flops_per_s: float
    bytes_per_s: float
    capability: float
    """CUDA compute capability, 0 for a CPU."""
    utilisation: float
    measured: bool
    """Whether `utilisation` was fitted on measured rows of this GPU."""
    tensor_cores: bool
    cpu_cores: int
    source: str
    note: str
    doubtful: str

    @property
    def has_bfloat16(self) -> bool:
        """Tell whether it multiplies bfloat16 natively (compute capability 8.0, pytorch#148322)."""
        return self.capability >= 8.0

    @property
    def has_flash_attention(self) -> bool:
        """Tell whether FlashAttention-2 runs on it (Ampere and later, flash-attention README)."""
        return self.capability >= 8.0

    def flops_per_s(self, dtype: str) -> float:
        """Return peak rate of matrix products in a precision; a GPU without bfloat16 computes in float16."""
        return self.fp32_flops_per_s if dtype == "float32" else self.tensor_flops_per_s


@cache
def all_gpus() -> dict[str, Gpu]:
    """Return the catalogue's GPUs by name, in its order."""
    table = parse_toml(files("tunedeck.planner").joinpath("gpus.toml").read_text(encoding="utf-8"))
    return {
        name: Gpu(
            name=name,
            names=tuple(row["names"]),
            memory_gb=row["memory_gb"],
            visible_bytes=row["visible_gib"] * GIB,
            tensor_flops_per_s=(row["tensor_tflops"] or row.get("fp16_tflops", row["fp32_tflops"])) * 1e12,
            fp32_flops_per_s=row["fp32_tflops"] * 1e12,
            bytes_per_s=row["gb_per_s"] * 1e9,
            capability=row["capability"],
            utilisation=row["utilisation"],
            measured=row["measured"],
            tensor_cores=row["tensor_tflops"] > 0,
            cpu_cores=row.get("cpu_cores", 0),
            source=row["source"],
            note=row.get("note", ""),
            doubtful=row.get("doubtful", ""),
        )
        for name, row in table.items()
    }


def find_gpu(name: str) -> Gpu:
    """Return the GPU of that name or short name; ConfigError names the nearest ones otherwise."""
    wanted = name.strip().lower().replace("_", "-")
    for gpu in all_gpus().values():
        if wanted == gpu.name or wanted in gpu.names:
            return gpu
    known = [known for gpu in all_gpus().values() for known in (gpu.name, *gpu.names)]
    raise ConfigError(
        say("unknown GPU {name!r}", name=name)
        + nearest(wanted, known)
        + say("; known: {known}", known=listing(all_gpus()))
    )
