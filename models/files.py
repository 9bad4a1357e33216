"""Where built and fetched models are kept."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(__file__).parent / "cache"


def write_whole(file: Path, data: bytes) -> None:
    """Write `data` to `file`, which appears whole or not at all; folders are made as needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
