"""Trees, n-grams, filters and training steps with random attributes.

ONNX Runtime is the judge of what it runs, ONNX's reference implementation of the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgec.graph import load
from edgec.lower.convert import unsupported

from .node_cases import check
from .running import run_model

OPSETS = {"": 21, "ai.onnx.ml": 5, "ai.onnx.preview.training": 1}


def model(op: str, inputs: list[np.ndarray], outputs: int = 1, **attrs: Any) -> Any:
    """A model of one node that gives float32."""
    domain, _, name = op.rpartition(".")
    names = [f"x{k}" for k in range(len(inputs))]
    results = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(name, names, results, domain=domain, **attrs)
    typed = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for n, x in zip(names, inputs, strict=True)
    ]
    declared = [onnx_output(n) for n in results]
    graph = helper.make_graph([node], "node", typed, declared)
    imports = [helper.make_opsetid(d, v) for d, v in OPSETS.items() if d in ("", domain)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def onnx_output(name: str) -> Any:
    return helper.make_value_info(name, helper.make_tensor_type_proto(TensorProto.FLOAT, None))


def with_constants(proto: Any, values: dict[str, np.ndarray]) -> Any:
    """`proto` with some of its inputs fixed."""
    proto.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in values.items())
    free = [info for info in proto.graph.input if info.name not in values]
    del proto.graph.input[:]
    proto.graph.input.extend(free)
    return proto


def by_onnxruntime(proto: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return list(session.run(None, {f"x{k}": x for k, x in enumerate(inputs)}))


def by_reference(proto: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    return list(ReferenceEvaluator(proto).run(None, {f"x{k}": x for k, x in enumerate(inputs)}))


def compare(proto: Any, inputs: list[np.ndarray], judge: Any = by_onnxruntime) -> None:
    for result, expected in zip(run_model(proto, *inputs), judge(proto, inputs), strict=True):
        check(result, np.asarray(expected).astype(result.dtype))


def refusal(proto: Any) -> str:
    return unsupported(load(proto, trusted=True))[0].why


def forest(random: np.random.Generator, features: int, trees: int) -> dict[str, Any]:
    """Trees of random shape: every inner node's children are new nodes, or leaves."""
    columns: dict[str, list[Any]] = {
        k: [] for k in ("featureids", "modes", "splits", "trackstrue", *SIDES)
    }
    weights: list[float] = []
    members: list[float] = []
    roots = []
    pending = []
    for _ in range(trees):
        roots.append(len(columns["modes"]) + len(pending))
        pending.append(int(random.integers(0, 4)))
    while pending:
        depth = pending.pop(0)
        columns["featureids"].append(int(random.integers(features)))
        columns["modes"].append(int(random.integers(0, 7)))
        columns["splits"].append(float(random.integers(-2, 3)))
        columns["trackstrue"].append(int(random.integers(2)))
        if columns["modes"][-1] == 6:
            members += [*random.permutation(5)[: random.integers(1, 4)] - 2.0, np.nan]
        for side in ("true", "false"):
            leaf = depth == 0 or random.random() < 0.3
            columns[f"{side}leafs"].append(int(leaf))
            if leaf:
                columns[f"{side}nodeids"].append(len(weights))
                weights.append(float(random.standard_normal()))
            else:
                columns[f"{side}nodeids"].append(len(columns["modes"]) + len(pending))
                pending.append(depth - 1)

    def tensor(name: str, values: list[Any], dtype: Any) -> TensorProto:
        return numpy_helper.from_array(np.asarray(values, dtype), name)

    attrs = {f"nodes_{name}": columns[name] for name in ("featureids", *SIDES)}
    attrs |= {
        "nodes_modes": tensor("modes", columns["modes"], np.uint8),
        "nodes_splits": tensor("splits", columns["splits"], np.float32),
        "nodes_missing_value_tracks_true": columns["trackstrue"],
        "leaf_weights": tensor("weights", weights, np.float32),
        "leaf_targetids": random.integers(0, 3, len(weights)).tolist(),
        "n_targets": 3,
        "tree_roots": roots,
        "aggregate_function": int(random.integers(0, 4)),
    }
    if members:
        attrs["membership_values"] = tensor("members", members, np.float32)
    return attrs


SIDES = ("truenodeids", "falsenodeids", "trueleafs", "falseleafs")


@pytest.mark.parametrize("seed", range(6))
def test_trees(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(-3, 4, (20, 4)).astype(np.float32)
    x[random.random(x.shape) < 0.1] = np.nan
    compare(model("ai.onnx.ml.TreeEnsemble", [x], **forest(random, 4, 5)), [x])


def test_trees_that_never_end_are_refused() -> None:
    random = np.random.default_rng(0)
    x = np.zeros((1, 4), np.float32)
    attrs = forest(random, 4, 1)
    attrs["nodes_trueleafs"][0] = 0
    attrs["nodes_truenodeids"][0] = attrs["tree_roots"][0]
    assert "do not form trees" in refusal(model("ai.onnx.ml.TreeEnsemble", [x], **attrs))


@pytest.mark.parametrize("seed", range(6))
def test_n_grams(seed: int) -> None:
    random = np.random.default_rng(seed)
    low = int(random.integers(1, 3))
    sizes = [list(map(tuple, np.unique(random.integers(0, 4, (6, n)), axis=0))) for n in (1, 2, 3)]
    count = sum(map(len, sizes))
    pool = [int(v) for grams in sizes for gram in grams for v in gram]
    starts = np.cumsum([0, len(sizes[0]), 2 * len(sizes[1])]).tolist()
    attrs: dict[str, Any] = {
        "pool_int64s": pool,
        "ngram_counts": starts,
        "ngram_indexes": random.permutation(count).tolist(),
        "min_gram_length": low,
        "max_gram_length": int(random.integers(low, 4)),
        "max_skip_count": int(random.integers(0, 3)),
        "mode": ("TF", "IDF", "TFIDF")[seed % 3],
    }
    if seed % 2:
        attrs["weights"] = random.standard_normal(count).astype(np.float32).tolist()
    x = random.integers(0, 4, (3, 12) if seed % 2 else 12)
    compare(model("TfIdfVectorizer", [x], **attrs), [x])


@pytest.mark.parametrize(
    ("bins", "length", "rate", "low", "high"),
    [(8, 16, 8192, 0.0, 4096.0), (40, 512, 16000, 20.0, 8000.0), (5, 33, 8000, 300.0, 3000.0)],
)
def test_mel_filters(bins: int, length: int, rate: int, low: float, high: float) -> None:
    names = [f"x{k}" for k in range(5)]
    values = [np.array(v, np.int32) for v in (bins, length, rate)]
    values += [np.array(v, np.float32) for v in (low, high)]
    proto = model("MelWeightMatrix", values)
    (expected,) = by_reference(proto, values)
    (made,) = run_model(with_constants(proto, dict(zip(names, values, strict=True))))
    check(made, expected)


@pytest.mark.parametrize(("onesided", "parts"), [(0, 1), (1, 1), (0, 2)])
@pytest.mark.parametrize("window", [False, True])
def test_short_time_transforms(onesided: int, parts: int, window: bool) -> None:
    random = np.random.default_rng(parts)
    x = random.standard_normal((2, 40, parts), np.float32)
    weight = random.random(12, np.float32)
    values = {"x1": np.array(5, np.int64), "x2": weight, "x3": np.array(12, np.int64)}
    proto = model("STFT", [x, *values.values()], onesided=onesided)
    if not window:
        proto.graph.node[0].input[2] = ""
    compare(with_constants(proto, values), [x])


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("tensors", [1, 2])
@pytest.mark.parametrize(
    ("op", "moments", "attrs"),
    [
        ("Adagrad", 1, {"decay_factor": 0.1, "epsilon": 1e-3, "norm_coefficient": 0.01}),
        ("Adam", 2, {"alpha": 0.8, "beta": 0.9, "norm_coefficient_post": 0.1, "epsilon": 1e-3}),
        ("Momentum", 1, {"alpha": 0.9, "beta": 0.2, "norm_coefficient": 0.1, "mode": "standard"}),
        ("Momentum", 1, {"alpha": 0.9, "beta": 0.2, "norm_coefficient": 0.1, "mode": "nesterov"}),
    ],
)
def test_training_steps(
    op: str, moments: int, attrs: dict[str, Any], tensors: int, count: int
) -> None:
    random = np.random.default_rng(count)
    shapes = [(3, 2), (5,)][:tensors]
    inputs = [np.float32(0.3), np.int64(count)]
    inputs += [random.random(s, np.float32) for _ in range(2 + moments) for s in shapes]
    inputs = [np.asarray(x) for x in inputs]
    proto = model(f"ai.onnx.preview.training.{op}", inputs, tensors * (1 + moments), **attrs)
    compare(proto, inputs, by_reference)
