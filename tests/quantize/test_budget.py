"""The accuracy budget: the right layers stay in floats, by few evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Edgec

from edgec.errors import DataError
from edgec.quantize.budget import OutOfBudget, Trial, keep_budget, metric_of
from edgec.quantize.quantizer import QuantizeOptions, quantize_model
from edgec.quantize.recover.recovery import Recovery
from edgec.quantize.sensitivity import Layer, noise

MODELS = Path(__file__).resolve().parents[2] / "models"

Floats = frozenset[str]


class Additive:
    """A model of layers whose errors add up: `drop` is their sum, with the names as the model."""

    def __init__(self, noises: list[float], costs: list[float] | None = None) -> None:
        costs = costs or [1.0] * len(noises)
        each = zip(noises, costs, strict=True)
        self.layers = [Layer(f"l{i}", noise, cost) for i, (noise, cost) in enumerate(each)]
        self.ranked = 0

    def rank(self) -> list[Layer]:
        self.ranked += 1
        return sorted(self.layers, key=lambda layer: -layer.gain)

    def drop(self, floats: Any) -> float:
        return sum(layer.noise for layer in self.layers if layer.name not in floats)

    def keep(self, most: float) -> Any:
        build: Any = lambda floats: floats  # noqa: E731
        return keep_budget(self.drop, most, build, self.rank)


def test_nothing_is_ranked_where_all_may_be_quantized() -> None:
    model = Additive([0.1, 0.2])
    kept = model.keep(0.31)
    assert kept.floats == frozenset()
    assert kept.evaluations == 2
    assert model.ranked == 0


@pytest.mark.parametrize("layers", [3, 10, 60, 200])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.02])
def test_the_fewest_layers_are_found_by_few_evaluations(layers: int, share: float) -> None:
    """NNCF evaluates once for each layer to rank them."""
    random = np.random.default_rng(layers)
    model = Additive(list(random.lognormal(0, 2, layers)))
    most = share * model.drop(frozenset())
    order = model.rank()
    counts = [model.drop({layer.name for layer in order[:n]}) for n in range(layers)]
    able = [n for n, drop in enumerate(counts) if drop <= most]
    if not able:
        with pytest.raises(OutOfBudget, match=f"with {layers - 1} of {layers} layers in floats"):
            model.keep(most)
        return
    kept = model.keep(most)
    assert kept.drop <= most
    assert len(kept.floats) <= able[0]
    assert kept.evaluations <= 8 + 2 * np.log2(layers)


def test_a_costly_layer_is_spared_where_cheap_ones_do() -> None:
    model = Additive([1.0, 0.9, 0.3, 0.3], [100.0, 1.0, 1.0, 1.0])
    assert model.keep(1.1).floats == {"l1", "l2", "l3"}


def test_a_layer_is_put_back_where_its_neighbours_were_enough() -> None:
    """l0 has the most error for its cost; l1 alone, which is dearer, takes as much."""
    model = Additive([0.5, 1.0, 0.1], [1.0, 2.5, 1.0])
    kept = model.keep(0.65)
    assert kept.floats == {"l1"}
    assert kept.trials[0] == Trial(frozenset(), pytest.approx(1.6))


def test_the_best_is_told_where_none_is_good_enough() -> None:
    with pytest.raises(OutOfBudget) as caught:
        Additive([0.4, 0.2, 0.1]).keep(0.05)
    assert caught.value.exit_code == 8
    assert caught.value.found.floats == {"l0", "l1"}
    assert caught.value.found.drop == pytest.approx(0.1)


def test_stopping_keeps_what_was_good_enough() -> None:
    model = Additive([3.0, 2.0, 0.2, 0.1])
    seen: list[Trial] = []

    def trial(each: Trial) -> None:
        seen.append(each)
        if len(seen) == 4:
            raise KeyboardInterrupt

    build: Any = lambda floats: floats  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        keep_budget(model.drop, 0.0, build, model.rank, trial)
    seen.clear()
    kept = keep_budget(model.drop, 0.35, build, model.rank, trial)
    assert kept.drop <= 0.35


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
    assert len(kept.floats) == 1
    assert kept.drop <= 0.01
    assert kept.evaluations <= 5
    smoothed = QuantizeOptions(recovery=Recovery(smooth=0.5), max_drop=0.01, metric=metric)
    kept = quantize_model(path, images, smoothed).kept
    assert kept is not None
    assert kept.floats == frozenset()


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
