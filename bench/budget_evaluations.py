"""How often a model is evaluated until an accuracy budget holds: edgec's --max-drop, or NNCF's
accuracy control.

    python bench/budget_evaluations.py edgec|nncf MODEL.onnx CALIBRATION.npz TEST.npz DROP [OUTPUT]

The metric is 1 - sqrt(noise / signal) of one output on the test data, the first or OUTPUT; prints
evaluations, seconds, layers left in floats and the drop. NNCF (pip install nncf openvino) may live
in an environment of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

Feed = Mapping[str, np.ndarray]


def samples(path: Path) -> list[dict[str, np.ndarray]]:
    """One by one, with a batch axis of 1."""
    arrays = dict(np.load(path))
    count = len(next(iter(arrays.values())))
    return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(count)]


def error(wanted: list[np.ndarray], given: list[np.ndarray]) -> float:
    """The square root of noise over signal."""
    a, b = (np.concatenate(each).astype(np.float64) for each in (wanted, given))
    return float(np.sqrt(np.square(b - a).sum() / np.square(a).sum()))


def by_edgec(
    model: Path, data: Feed, metric: Callable[..., float], drop: float
) -> tuple[int, float]:
    """Layers in floats and the drop."""
    from edgec.quantize.quantizer import QuantizeOptions, quantize_model

    options = QuantizeOptions(profile="x86", max_drop=drop, metric=metric)
    kept = quantize_model(model, data, options).kept
    assert kept is not None
    return len(kept.trial.raised), kept.trial.drop


def main() -> None:
    engine, model, calibration, test, drop, *name = sys.argv[1:]
    graph = onnx.load(model, load_external_data=False).graph
    output = name[0] if name else graph.output[0].name
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = samples(Path(test))
    wanted = [session.run([output], feed)[0] for feed in feeds]
    calls = 0
    start = time.perf_counter()
    if engine == "edgec":

        def metric(run: Callable[[Feed], Feed]) -> float:
            nonlocal calls
            calls += 1
            return 1 - error(wanted, [run(feed)[output] for feed in feeds])

        floats, lost = by_edgec(Path(model), dict(np.load(calibration)), metric, float(drop))
    else:
        import nncf
        import openvino as ov

        plain = ov.Core().read_model(model)
        plain.reshape({key: ov.PartialShape(list(a.shape)) for key, a in feeds[0].items()})

        def validate(compiled: ov.CompiledModel, data: object) -> tuple[float, None]:
            nonlocal calls
            calls += 1
            return 1 - error(wanted, [compiled(feed)[output] for feed in feeds]), None

        quantized = nncf.quantize_with_accuracy_control(
            plain,
            nncf.Dataset(samples(Path(calibration))),
            nncf.Dataset(feeds),
            validate,
            max_drop=float(drop),
        )
        layers = ("Convolution", "GroupConvolution", "MatMul")
        inner = [op for op in quantized.get_ops() if op.get_type_name() in layers]
        sources = [op.input_value(0).get_node().get_type_name() for op in inner]
        floats = sum(kind != "FakeQuantize" for kind in sources)
        compiled = ov.Core().compile_model(quantized, "CPU")
        lost = error(wanted, [compiled(feed)[output] for feed in feeds])
    seconds = time.perf_counter() - start
    print(f"{engine}: {calls} evaluations, {seconds:.0f} s, {floats} layers in floats, {lost:.4f}")


if __name__ == "__main__":
    main()
