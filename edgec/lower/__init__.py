"""Lowering: ONNX to Relax, Relax to kernels, kernels to native objects.

TVM is imported in this package and in `edgec.tune` only.
"""

from __future__ import annotations

import sys


def _import_tvm() -> None:
    """Import TVM without torch, which it would import where it finds it (4 s and 200 MB)."""
    if "torch" in sys.modules:
        import tvm

        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tvm  # noqa: F401
    finally:
        del sys.modules["torch"]


_import_tvm()
