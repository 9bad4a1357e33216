"""Narrow elements through a whole artifact: compiled, compared with ONNX Runtime, self-tested."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
from onnx import parser

from edgec.compiler import compile_model
from edgec.packing import pack, unpack
from edgec.runtime.load import load

MODEL = """
    <ir_version: 10, opset_import: ["": 21]>
    narrow (int4[3,1001] x, float8e5m2[1001] z)
    => (float[3,1001] y, int4[3,1001] w, float8e5m2[1001] v) {
      scale = Constant<value = float {0.5}>()
      half = Constant<value = float {0.25}>()
      y = DequantizeLinear(x, scale)
      w = QuantizeLinear<output_dtype = 22>(y, half)
      f = Cast<to = 1>(z)
      n = Neg(f)
      v = Cast<to = 19>(n)
    }
"""


def test_narrow_inputs_and_outputs(tmp_path: Path) -> None:
    artifact = compile_model(parser.parse_model(MODEL), tmp_path / "narrow.edgec").path
    random = np.random.default_rng(0)
    x = random.integers(-8, 8, (3, 1001)).astype(ml_dtypes.int4)
    z = random.standard_normal(1001).astype(ml_dtypes.float8_e5m2)
    with load(artifact) as module:
        module.selftest()
        made = module.run({"x": x, "z": z})
        packed = module.run({"x": pack(x), "z": pack(z)})
        shapes = {t.name: (t.dtype, t.nbytes, t.numpy_shape) for t in module.inputs}
    assert shapes["x"] == ("int4", 1502, (1502,))
    np.testing.assert_array_equal(made["y"], x.astype(np.float32) / 2)
    doubled = np.clip(x.astype(np.int32) * 2, -8, 7)
    np.testing.assert_array_equal(unpack(made["w"], "int4", x.shape).astype(np.int32), doubled)
    np.testing.assert_array_equal(made["v"].view(z.dtype), -z)
    assert all((made[name] == packed[name]).all() for name in made)
