"""The other optimizers of ONNX graphs: onnxsim, onnxslim, and ONNX Runtime's extended level."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner


@dataclass(frozen=True)
class Tool:
    """An optimizer that is measured beside edgec; `run` maps a model to an optimised one."""

    name: str
    run: Callable[[onnx.ModelProto], onnx.ModelProto]


def _simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim

    return onnxsim.simplify(model)[0]


def _slim(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim

    return onnxslim.slim(model)


TOOLS = (Tool("onnxsim", _simplify), Tool("onnxslim", _slim))


def in_process(tool: Tool, source: Path, repeats: int) -> tuple[onnx.ModelProto, float] | None:
    """What `tool` makes of the model, and the seconds of its fastest run; None where it fails."""
    best = float("inf")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for _ in range(repeats):
            model = onnx.load(source)
            started = time.perf_counter()
            try:
                result = tool.run(model)
            except Exception:
                return None
            best = min(best, time.perf_counter() - started)
    return result, best


def command(program: str, *arguments: str | Path) -> list[str]:
    """The command line of a program of this environment."""
    return [str(Path(sys.executable).parent / program), *map(str, arguments)]


def seconds_of(commands: Sequence[Sequence[str]], repeats: int) -> list[float]:
    """Wall time of each command, the fastest of runs that alternate; infinite where it fails."""
    best = [float("inf")] * len(commands)
    for _ in range(repeats):
        for i, words in enumerate(commands):
            started = time.perf_counter()
            done = subprocess.run(words, capture_output=True, check=False)
            if done.returncode == 0:
                best[i] = min(best[i], time.perf_counter() - started)
    return best


def runtime_extended(source: Path, folder: Path) -> onnx.ModelProto:
    """The model as ONNX Runtime's extended level leaves it."""
    import onnxruntime

    settings: Any = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.log_severity_level = 4
    written = folder / "extended.onnx"
    settings.optimized_model_filepath = str(written)
    onnxruntime.InferenceSession(str(source), settings, ["CPUExecutionProvider"])
    return onnx.load(written)


def node_count(model: onnx.ModelProto) -> int:
    """Nodes once functions are inlined: those of subgraphs too, Constants not."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return _count(model.graph)


def _count(graph: onnx.GraphProto) -> int:
    inner = (a.g for n in graph.node for a in n.attribute if a.HasField("g"))
    return sum(n.op_type != "Constant" for n in graph.node) + sum(map(_count, inner))
