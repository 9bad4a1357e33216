"""Optimises the models that generate.py left in FOLDER, and compares what they compute.

ONNX Runtime without optimisations runs each model as it was and as edgec made it, on the inputs
that NNSmith found for it. Prints what differs and how many were run; exits with 1 when any did.

ONNX Runtime computes half precision in float32 and rounds in between or not, depending on which
operators are neighbours, so that even taking out an Identity moves a result. A model in half
precision that gives other numbers must be right with float32 in its place.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from half import uses_half, wide, widened

from edgec.compare import compare_tensor
from edgec.graph import load
from edgec.passes import LEVELS
from edgec.rewrite import optimize

LIMIT = 10.0
"""Tolerances: a tenth of NNSmith's own, for its models may cancel all but the last digits."""


def main(folder: Path) -> int:
    ran = refused = 0
    failures: list[str] = []
    for path in sorted(folder.glob("*.onnx"), key=lambda p: int(p.stem)):
        model = onnx.load(path)
        with np.load(path.with_suffix(".npz")) as stored:
            inputs = dict(stored)
        try:
            expected = run(model, inputs)
        except Exception:
            refused += 1
            continue
        ran += 1
        for level in (2, 3):
            problem = compare(model, level, inputs, expected)
            if problem:
                failures.append(f"{path}, level {level}: {problem}")
                print(failures[-1], flush=True)
    print(f"{ran} models, {len(failures)} failures; ONNX Runtime cannot run {refused} others")
    return 1 if failures or not ran else 0


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    given = {i.name: inputs[i.name] for i in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


def compare(
    model: onnx.ModelProto,
    level: int,
    inputs: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
) -> str:
    """What is wrong with `model` optimised at `level`, or nothing."""
    try:
        graph = load(model)
        optimize(graph, LEVELS[level])
        optimized = graph.to_source_opset()
        onnx.checker.check_model(optimized, full_check=True)
        actual = run(optimized, inputs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if list(actual) != list(expected):
        return f"the outputs are {list(actual)}, not {list(expected)}"
    reports = [compare_tensor(name, a, actual[name], limit=LIMIT) for name, a in expected.items()]
    wrong = [report for report in reports if not report.ok]
    if wrong and uses_half(model):
        twin, given = widened(model), {name: wide(a) for name, a in inputs.items()}
        return compare(twin, level, given, run(twin, given))
    return "; ".join(f"'{r.name}': {r.problem}" for r in wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
