"""edgec: a graph optimizer and ahead-of-time compiler from ONNX to edge devices.

    import edgec

    module = edgec.compile("model.onnx", target="host")
    outputs = module.run({"x": x})

    edgec.compile_model("model.onnx", "model.edgec", edgec.Options(targets=("aarch64",)))
    module = edgec.load("model.edgec")

    smaller = edgec.optimize("model.onnx")

Importing edgec imports next to nothing: what a function needs is imported when it is first used,
ONNX to optimise, ONNX and TVM to compile.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

from edgec.errors import EdgecError

if TYPE_CHECKING:
    from edgec.compiler import ModelSource, Result, compile_model
    from edgec.optimizer import optimize
    from edgec.options import Options
    from edgec.runtime.load import Module, load

__all__ = [
    "EdgecError",
    "Module",
    "Options",
    "Result",
    "__version__",
    "compile",
    "compile_model",
    "load",
    "optimize",
]


def compile(model: ModelSource, target: str = "host", **options: Any) -> Module:
    """Compile `model`, a path or an `onnx.ModelProto`, and load the result, ready to run.

    `options` are the fields of `edgec.Options`. For a target that this machine cannot run, use
    `compile_model`, which writes an artifact.

    Raises:
        EdgecError: what went wrong, by stage; see `edgec.errors`.
    """
    from edgec.compiler import compile_model
    from edgec.options import Options
    from edgec.runtime.load import load

    with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
        path = Path(folder) / "model.edgec"
        compile_model(model, path, Options(targets=(target,), **options))
        return load(path)


_LAZY = {
    "Module": "runtime.load",
    "Options": "options",
    "Result": "compiler",
    "compile_model": "compiler",
    "load": "runtime.load",
    "optimize": "optimizer",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"edgec.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'edgec' has no attribute '{name}'")
