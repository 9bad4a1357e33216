"""The text that stands before the CUDA C of every kernel."""

from __future__ import annotations

from pathlib import Path

PRELUDE_FILE = Path(__file__).with_suffix(".h")
TILES = "".join(
    Path(__file__).with_name(name).read_text(encoding="utf-8")
    for name in ("cuda_tiles.h", "cuda_cores.h")
)
"""What stands before kernels that compute products tile by tile."""

PRELUDE = PRELUDE_FILE.read_text(encoding="utf-8")

C_TYPES = {
    "bool": "bool",
    "float16": "half",
    "float32": "float",
    "float64": "double",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "uint32": "uint32_t",
    "uint64": "uint64_t",
}
"""Element types in that text, by TVM's name."""
