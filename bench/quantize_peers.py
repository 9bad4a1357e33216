"""Models as other quantizers make them, for bench/quantize_accuracy.py to judge.

    .venv/bin/python bench/quantize_accuracy.py --export build/peers     # data and model names
    python bench/quantize_peers.py build/peers                           # quantizes
    .venv/bin/python bench/quantize_accuracy.py --judge build/peers

ONNX Runtime's static QDQ is of uint8 activations and int8 weights by channel, ranges by min-max,
after its own preprocessing; NNCF's is its default. Each is used where it is installed: NNCF may
live in an environment of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.version_converter


def at_least_13(path: Path) -> onnx.ModelProto:
    """The model without initializers among its inputs, at an opset that has scales by channel."""
    plain = onnx.load(path)
    constants = {tensor.name for tensor in plain.graph.initializer}
    for value in [v for v in plain.graph.input if v.name in constants]:
        plain.graph.input.remove(value)
    if plain.opset_import[0].version < 13:
        plain = onnx.version_converter.convert_version(plain, 13)
    return plain


def by_onnxruntime(
    model: Path, feeds: list[dict[str, np.ndarray]], output: Path, activations: str = "QUInt8"
) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader:
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    with tempfile.TemporaryDirectory() as folder:
        source, prepared = Path(folder) / "source.onnx", Path(folder) / "model.onnx"
        onnx.save(at_least_13(model), source)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            output,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType[activations],
            weight_type=QuantType.QInt8,
            per_channel=True,
        )


def by_nncf(model: Path, feeds: list[dict[str, np.ndarray]], output: Path) -> None:
    import nncf

    plain = at_least_13(model)
    onnx.save(nncf.quantize(plain, nncf.Dataset(feeds), subset_size=len(feeds)), output)


QUANTIZERS = {"onnxruntime": by_onnxruntime, "nncf": by_nncf}


def main() -> None:
    folder = Path(sys.argv[1])
    for data in sorted(folder.glob("*.npz")):
        model = Path(data.with_suffix(".txt").read_text())
        arrays = dict(np.load(data))
        count = len(next(iter(arrays.values())))
        feeds = [{name: a[i : i + 1] for name, a in arrays.items()} for i in range(count)]
        for name, quantize in QUANTIZERS.items():
            if importlib.util.find_spec(name) is None:
                continue
            with contextlib.redirect_stdout(sys.stderr):
                try:
                    quantize(model, feeds, data.with_suffix(f".{name}.onnx"))
                except Exception as error:
                    print(f"{data.stem}: {name}: {error!r}")


if __name__ == "__main__":
    main()
