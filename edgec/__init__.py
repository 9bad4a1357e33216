"""edgec: a graph optimizer and ahead-of-time compiler from ONNX to edge devices."""

from __future__ import annotations

from edgec.errors import EdgecError

__version__ = "0.1.0"

__all__ = ["EdgecError", "__version__"]
