"""The text that stands before the CUDA C of every kernel."""

from __future__ import annotations

from pathlib import Path

PRELUDE_FILE = Path(__file__).with_suffix(".h")
PRELUDE = PRELUDE_FILE.read_text(encoding="utf-8")
