"""Writes random models of NNSmith, and inputs on which they compute numbers: FOLDER COUNT [FIRST].

Runs in an environment of its own, which has NNSmith and PyTorch. Model N.onnx and its inputs N.npz
come of seed N; a seed for which NNSmith finds no model within its time, or which PyTorch cannot
export, leaves none. What is there already is kept.
"""

from __future__ import annotations

import functools
import random
import sys
from pathlib import Path

import numpy as np
import torch
import torch.onnx
from nnsmith.abstract.extension import activate_ext
from nnsmith.graph_gen import model_gen
from nnsmith.materialize import Model
from nnsmith.narrow_spec import auto_opset

MAX_NODES = (4, 8, 12)
MAX_ELEMENTS = 4096
MILLISECONDS = 20_000


def main(folder: Path, count: int, first: int = 0) -> None:
    torch.set_num_threads(1)
    torch.onnx.export = functools.partial(torch.onnx.export, dynamo=False)
    kind = Model.init("onnx", backend_target="cpu")
    kind.add_seed_setter()
    operators = auto_opset(kind, None, vulops=False)
    activate_ext(opset=operators, factory=None)
    folder.mkdir(parents=True, exist_ok=True)
    seed = first
    while len(list(folder.glob("*.onnx"))) < count:
        path = folder / f"{seed}.onnx"
        if not path.exists():
            try:
                write(kind, operators, seed, path)
            except Exception as error:
                print(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        seed += 1


def write(kind: type[Model], operators: list[type], seed: int, path: Path) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    generated = model_gen(
        opset=operators,
        method="symbolic-cinit",
        seed=seed,
        max_elem_per_tensor=MAX_ELEMENTS,
        max_nodes=MAX_NODES[seed % len(MAX_NODES)],
        timeout_ms=MILLISECONDS,
    )
    model = kind.from_gir(generated.make_concrete())
    model.refine_weights()
    inputs = model.make_oracle().input
    np.savez(path.with_suffix(".npz"), **{name: np.asarray(v) for name, v in inputs.items()})
    path.write_bytes(model.native_model.SerializeToString())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
