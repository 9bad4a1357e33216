"""The accuracy budget: the right layers stay in floats, by few evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from command import Edgec

from edgec import targets
from edgec.errors import DataError
from edgec.graph import load
from edgec.peers import Peer
from edgec.quantize import within
from edgec.quantize.budget import OutOfBudget, Trial, keep_budget, metric_of
from edgec.quantize.gate import MEASURED, Pair, Times
from edgec.quantize.ladder import Step, costs_of, ladder, raised, steps
from edgec.quantize.plan import structure
from edgec.quantize.profiles import resolve
from edgec.quantize.quantizer import QuantizeOptions, quantize_model
from edgec.quantize.recover.recovery import Recovery
from edgec.quantize.sensitivity import Runner, noise

MODELS = Path(__file__).resolve().parents[2] / "models"


class Additive:
    """A model of layers whose errors add up: `drop` is their sum, with the rungs as the model."""

    def __init__(
        self, noises: list[float], costs: list[float] | None = None, **between: float
    ) -> None:
        """`between` is the share of its noise that a layer keeps on "w8a16", for half the cost."""
        self.noises = {f"l{i}": {"w8a8": n} for i, n in enumerate(noises)}
        costs = costs or [1.0] * len(noises)
        self.costs = {f"l{i}": {"w8a8": 0.0, "fp32": c} for i, c in enumerate(costs)}
        for share in between.values():
            for layer, cost in self.costs.items():
                self.noises[layer]["w8a16"] = share * self.noises[layer]["w8a8"]
                cost["w8a16"] = 0.5 * cost["fp32"]
        self.ranked = 0

    def rank(self) -> list[Step]:
        self.ranked += 1
        return steps(self.noises, self.costs)

    def drop(self, raised: Any) -> float:
        return sum(
            {**noise, "fp32": 0.0}[raised.get(layer, "w8a8")]
            for layer, noise in self.noises.items()
        )

    def keep(self, most: float) -> Any:
        build: Any = lambda raised: raised  # noqa: E731
        return keep_budget(self.drop, most, build, self.rank)


def test_nothing_is_ranked_where_all_may_be_quantized() -> None:
    model = Additive([0.1, 0.2])
    kept = model.keep(0.31)
    assert kept.trial.raised == {}
    assert kept.evaluations == 2
    assert model.ranked == 0


@pytest.mark.parametrize("layers", [3, 10, 60, 200])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.02])
def test_the_fewest_layers_are_found_by_few_evaluations(layers: int, share: float) -> None:
    """NNCF evaluates once for each layer to rank them."""
    random = np.random.default_rng(layers)
    model = Additive(list(random.lognormal(0, 2, layers)))
    most = share * model.drop({})
    order = model.rank()
    counts = [model.drop(raised(order[:n])) for n in range(layers)]
    able = [n for n, drop in enumerate(counts) if drop <= most]
    if not able:
        with pytest.raises(OutOfBudget, match=f"with {layers - 1} in fp32 of {layers} layers"):
            model.keep(most)
        return
    kept = model.keep(most)
    assert kept.trial.drop <= most
    assert len(kept.trial.floats) <= able[0]
    assert kept.evaluations <= 8 + 2 * np.log2(layers)


def test_a_costly_layer_is_spared_where_cheap_ones_do() -> None:
    model = Additive([1.0, 0.9, 0.3, 0.3], [100.0, 1.0, 1.0, 1.0])
    assert model.keep(1.1).trial.floats == {"l1", "l2", "l3"}


def test_a_layer_is_put_back_where_its_neighbours_were_enough() -> None:
    """l0 has the most error for its cost; l1 alone, which is dearer, takes as much."""
    model = Additive([0.5, 1.0, 0.1], [1.0, 2.5, 1.0])
    kept = model.keep(0.65)
    assert kept.trial.floats == {"l1"}
    assert kept.trials[0] == Trial({}, pytest.approx(1.6))


def test_a_rung_between_is_taken_where_it_gains_more_for_its_cost() -> None:
    """To a tenth of the noise for half the cost: first all layers there, then on to floats."""
    model = Additive([1.0, 0.5, 0.2], between=0.1)
    assert model.keep(0.4).trial.raised == {"l0": "w8a16", "l1": "w8a16"}
    assert model.keep(0.08).trial.raised == {"l0": "fp32", "l1": "w8a16", "l2": "w8a16"}


def test_a_rung_between_is_passed_over_where_floats_gain_more() -> None:
    model = Additive([1.0, 0.5, 0.2], between=0.7)
    assert model.keep(0.4).trial.raised == {"l0": "fp32", "l1": "fp32"}


def test_a_step_that_takes_no_longer_comes_first() -> None:
    model = Additive([1.0, 0.5, 0.2], [1.0, 1.0, -1.0])
    assert model.rank()[0].layer == "l2"
    assert model.rank()[0].gain == np.inf


def test_a_layer_without_weights_goes_to_floats_at_once() -> None:
    """On every rung above it is in floats."""
    noises = {"computed": {"w8a8": 1.0, "w8a16": 0.0, "fp16": 0.0}}
    costs = {"computed": {"w8a8": 0.0, "w8a16": 2.0, "fp16": 2.0, "fp32": 2.0}}
    assert steps(noises, costs) == [Step("computed", "fp32", 1.0, 2.0)]


def test_costs_are_of_arithmetic_conversions_and_weights() -> None:
    graph = load(MODELS / "digits_cnn.onnx")
    units = structure(graph, resolve("host")).units
    conv = next(unit for unit in units if unit.name == "conv2")
    target = targets.resolve("x86-64-v4+avx512vnni")
    costs = costs_of([conv], ladder("w8a8"), target)["conv2"]
    assert costs["w8a8"] < costs["w8a16"] < costs["fp16"] < costs["fp32"]
    weights = conv.first.inputs[1].values.size
    assert costs["fp32"] - costs["fp16"] == pytest.approx(2 * weights / 8)
    measured = Times({"conv2": Pair(5e-6, 1e-6)}, lambda tensor: 2e-6, MEASURED, str)
    costs = costs_of([conv], ladder("w8a8"), target, measured)["conv2"]
    assert costs["w8a16"] - costs["w8a8"] == pytest.approx(5e-6 - 1e-6 + 2 * 2e-6)


def test_ladders() -> None:
    assert ladder("w2a16") == ("w2a16", "w4a16", "w8a16", "fp16", "fp32")
    assert ladder("w4a16") == ("w4a16", "w8a16", "fp16", "fp32")
    assert ladder("w8a16") == ("w8a16", "fp16", "fp32")
    assert ladder("w8a8") == ("w8a8", "w8a16", "fp16", "fp32")
    assert ladder("dynamic") == ("dynamic", "w8a16", "fp16", "fp32")
    assert ladder("fp16") == ("fp16", "fp32")
    assert ladder("bf16") == ("bf16", "fp16", "fp32")


def test_the_best_is_told_where_none_is_good_enough() -> None:
    with pytest.raises(OutOfBudget) as caught:
        Additive([0.4, 0.2, 0.1]).keep(0.05)
    assert caught.value.exit_code == 8
    assert caught.value.found.trial.floats == {"l0", "l1"}
    assert caught.value.found.trial.drop == pytest.approx(0.1)


def test_stopping_keeps_what_was_good_enough() -> None:
    model = Additive([3.0, 2.0, 0.2, 0.1])
    seen: list[Trial] = []

    def trial(each: Trial) -> None:
        seen.append(each)
        if len(seen) == 4:
            raise KeyboardInterrupt

    build: Any = lambda raised: raised  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        keep_budget(model.drop, 0.0, build, model.rank, trial)
    seen.clear()
    kept = keep_budget(model.drop, 0.35, build, model.rank, trial)
    assert kept.trial.drop <= 0.35


def test_metrics_are_checked() -> None:
    def broken(run: Any) -> float:
        raise ValueError("no labels")

    for function, what in (
        (broken, "no labels"),
        (lambda run: "x", "could not"),
        (lambda run: np.nan, "nan"),
    ):
        with pytest.raises(DataError, match=what):
            metric_of(function, "f.py:m")(lambda inputs: {})


def test_noise_is_of_all_samples() -> None:
    wanted = [{"y": np.array([3.0, 0.0])}, {"y": np.array([0.0, 4.0])}]
    given = [{"y": np.array([3.0, 1.0])}, {"y": np.array([0.0, 4.0])}]
    assert noise(wanted, given) == {"y": pytest.approx(1 / 25)}
    assert noise([{"n": np.array([3])}], [{"n": np.array([4])}]) == {}


def poisoned(tmp_path: Path) -> Path:
    """digits_cnn with one input channel of its last layer a thousand times as large as before, and
    what is multiplied with it as much smaller: no 8 bits for all channels hold that."""
    from edgec.optimizer import optimize

    model = optimize(MODELS / "digits_cnn.onnx")
    by_name = {tensor.name: tensor for tensor in model.graph.initializer}
    conv = [node for node in model.graph.node if node.op_type == "Conv"][1]
    after = [node for node in model.graph.node if node.op_type == "Conv"][2]
    for name, factor, axis in (
        *((name, 1000.0, 0) for name in conv.input[1:]),
        (after.input[1], 1 / 1000.0, 1),
    ):
        values = onnx.numpy_helper.to_array(by_name[name]).copy()
        np.moveaxis(values, axis, 0)[0] *= np.float32(factor)
        by_name[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    path = tmp_path / "poisoned.onnx"
    onnx.save(model, path)
    return path


def test_the_layer_that_does_the_harm_stays_in_floats(tmp_path: Path) -> None:
    images = {"image": np.load(MODELS / "digits_test.npz")["image"]}
    labels = np.load(MODELS / "digits_labels.npy")
    path = poisoned(tmp_path)

    def metric(run: Any) -> float:
        rows = [run({"image": image[None]})["logits"].argmax() for image in images["image"]]
        return float((np.array(rows) == labels[: len(rows)]).mean())

    options = QuantizeOptions(max_drop=0.01, metric=metric)
    kept = quantize_model(path, images, options).kept
    assert kept is not None
    assert kept.trials[0].drop > 0.2
    assert len(kept.trial.raised) == 1
    assert kept.trial.drop <= 0.01
    assert kept.evaluations <= 5
    smoothed = QuantizeOptions(recovery=Recovery(smooth=0.5), max_drop=0.01, metric=metric)
    kept = quantize_model(path, images, smoothed).kept
    assert kept is not None
    assert kept.trial.raised == {}


def test_the_command(edgec: Edgec, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "import numpy as np\n"
        f"images = np.load({str(MODELS / 'digits_test.npz')!r})['image'][:32]\n"
        f"labels = np.load({str(MODELS / 'digits_labels.npy')!r})[:32]\n"
        "def right(run):\n"
        "    return np.mean([run({'image': i[None]})['logits'].argmax() == n"
        " for i, n in zip(images, labels)])\n"
    )
    words = (
        "quantize",
        MODELS / "digits_cnn.onnx",
        "--calib",
        MODELS / "digits_test.npz",
        "-o",
        tmp_path / "q.onnx",
    )
    done = edgec(*words, "--max-drop", "0.01", "--eval", f"{tmp_path / 'judge.py'}:right", "--json")
    assert done.result["budget"]["evaluations"] == 2
    onnx.checker.check_model(onnx.load(tmp_path / "q.onnx"))

    done = edgec(*words, "--max-drop", "-1")
    assert done.code == 8
    assert "no quantized model is worse by -1 at most" in done.err
    assert (tmp_path / "q.onnx").exists()
    done = edgec(*words, "--eval", f"{tmp_path / 'judge.py'}:right")
    assert done.code == 2


@pytest.mark.parametrize(
    ("scheme", "most", "above"),
    [("w2a16", 0.1, {"w4a16", "w8a16", "fp16"}), ("w4a16", 0.02, {"w8a16", "fp16", "fp32"})],
)
def test_weights_climb_the_ladder(scheme: str, most: float, above: set[str]) -> None:
    """By what the outputs differ, and as far as that takes: where 4 bits do, no more."""
    images = np.load(MODELS / "digits_test.npz")["image"][:32]
    model = MODELS / "digits_transformer.onnx"

    def metric(run: Any) -> float:
        rows = [run({"image": image[None]})["logits"] for image in images]
        return -float(np.sqrt(np.square(np.concatenate(rows) - wanted).sum() / (wanted**2).sum()))

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [wanted] = session.run(None, {"image": images})
    options = QuantizeOptions(scheme=scheme, max_drop=most, metric=metric)
    result = quantize_model(model, {"image": images}, options)
    assert result.kept is not None
    trial = result.kept.trial
    assert result.kept.trials[0].drop > most
    assert trial.drop <= most
    assert set(trial.raised.values()) <= above
    assert trial.raised
    assert result.kept.evaluations <= 16
    onnx.checker.check_model(result.model)
    plainly = onnxruntime.SessionOptions()
    plainly.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        result.model.SerializeToString(), plainly, providers=["CPUExecutionProvider"]
    )
    [given] = session.run(None, {"image": images})
    again = np.sqrt(np.square(given - wanted).sum() / np.square(wanted).sum())
    assert again == pytest.approx(trial.drop, rel=0.02)


class Counting(Runner):
    """Counts how many models are loaded."""

    loads = 0

    def load(self, model: onnx.ModelProto) -> None:
        Counting.loads += 1
        super().load(model)


def test_what_was_measured_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(within, "Runner", Counting)
    images = {"image": np.load(MODELS / "digits_test.npz")["image"][:16]}
    path = poisoned(tmp_path)

    def kept(data: dict[str, Any]) -> tuple[Any, int]:
        before = Counting.loads
        options = QuantizeOptions(recovery=Recovery(), max_drop=0.01)
        return quantize_model(path, data, options).kept, Counting.loads - before

    first, most = kept(images)
    again, least = kept(images)
    assert again.trials == first.trials
    assert again.steps == first.steps
    assert (most > 6, least) == (True, 2)
    assert kept({"image": images["image"] * np.float32(0.5)})[1] > 6
    monkeypatch.setattr(Peer, "version", lambda peer: "0.0.1")
    assert kept(images)[1] == most
