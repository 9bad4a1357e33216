"""What quantization costs in accuracy on trained models, and what each option of it wins back.

    .venv/bin/python bench/quantize_accuracy.py [MODEL ...] [--options NAME;...] [--judge DIR]

prints a row of docs/quantize-accuracy.md for each model and set of options. Data never used for
calibration judges: held-out digits and scenes of them, each half of the face photos in turn, other
crops of photos. The MLPerf Tiny models of sound have no data here: theirs is random. SQNR is of all
floats that a model gives, ONNX Runtime with its optimisations off computes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared"
sys.path[:0] = [str(REPO), str(REPO / "models"), str(REPO / "tests")]

from quantize import faces  # noqa: E402

import digits  # noqa: E402
import scenes  # noqa: E402
from edgec.quantize.quantizer import QuantizeOptions, quantize_model  # noqa: E402
from edgec.quantize.recover.recovery import Recovery  # noqa: E402

Feed = Mapping[str, np.ndarray]
Judge = Callable[[Sequence[Feed], Sequence[Feed]], str]
"""From the outputs of the float and of the quantized model, for each fold, to words."""

OPTIONS: dict[str, Recovery | None] = {
    "default": None,
    "nearest": Recovery(),
    "equalize": Recovery(equalize=True),
    "smooth 0.5": Recovery(smooth=0.5),
    "smooth 0.7": Recovery(smooth=0.7),
    "bias": Recovery(bias_correction=True),
    "adaround": Recovery(rounding="adaround"),
    "gptq": Recovery(rounding="gptq"),
    "smooth 0.5, adaround, bias": Recovery(False, 0.5, "adaround", True),
}
PEERS = ("onnxruntime", "nncf")
PROFILES = ("portable", "x86")


@dataclass(frozen=True)
class Case:
    """A model; folds of what it is calibrated with and what it is then judged on."""

    path: Path
    folds: Sequence[tuple[Feed, Feed]]
    judge: Judge


def cases() -> Iterator[Case]:
    """All models, those of `../shared` where they are there."""
    models = REPO / "models"
    (images, _), (test, labels) = digits.split()
    fold = {"image": images[:128]}, {"image": test}
    for name in ("digits_cnn", "digits_transformer"):
        yield Case(models / f"{name}.onnx", [fold], accuracy(labels))
    calibration, _ = scenes.scenes(*digits.split()[0], 64, 1)
    canvases, truths = scenes.scenes(test, labels, 200, 2)
    fold = {"image": calibration}, {"image": canvases}
    yield Case(models / "digits_detector.onnx", [fold], mean_precision(truths))
    if not SHARED.is_dir():
        return
    photos = faces.photos()
    halves = [{"input": photos[:6]}, {"input": photos[6:]}]
    yield Case(faces.MODEL, [(halves[0], halves[1]), (halves[1], halves[0])], found)
    for name, size, scale in (("ic_resnet8", 32, 1.0), ("vww_mobilenet", 96, 1 / 255)):
        path = SHARED / "models" / f"mlperf_tiny_{name}_fp32.onnx"
        pieces = crops(photos * 128 + 127, size) * np.float32(scale)
        name = input_name(path)
        yield Case(path, [({name: pieces[:64]}, {name: pieces[64:]})], agreement)
    random = np.random.default_rng(0)
    for name, shape in (("kws", (49, 10, 1)), ("ad_autoencoder", (640,))):
        path = SHARED / "models" / f"mlperf_tiny_{name}_fp32.onnx"
        values = random.standard_normal((256, *shape), np.float32)
        name = input_name(path)
        yield Case(path, [({name: values[:64]}, {name: values[64:]})], agreement)


def crops(photos: np.ndarray, size: int) -> np.ndarray:
    """float32 [384, size, size, 3]: pieces of the photos [n, 3, height, width], halved in size."""
    random = np.random.RandomState(0)
    half = photos[:, :, ::2, ::2].transpose(0, 2, 3, 1)
    corners = zip(
        random.randint(0, len(half), 384),
        random.randint(0, half.shape[1] - size, 384),
        random.randint(0, half.shape[2] - size, 384),
        strict=True,
    )
    return np.stack([half[i, y : y + size, x : x + size] for i, y, x in corners])


def input_name(path: Path) -> str:
    """Of the only input."""
    return str(onnx.load(path, load_external_data=False).graph.input[0].name)


def accuracy(labels: np.ndarray) -> Judge:
    """The share of digits that are told right."""
    return lambda wanted, given: f"{100 * (only(given[0]).argmax(-1) == labels).mean():.2f} %"


def agreement(wanted: Sequence[Feed], given: Sequence[Feed]) -> str:
    """How often the largest output is the float model's."""
    same = only(wanted[0]).argmax(-1) == only(given[0]).argmax(-1)
    return f"{100 * same.mean():.1f} % same"


def mean_precision(truths: Sequence[scenes.Truth]) -> Judge:
    """The detector's mAP."""

    def judge(wanted: Sequence[Feed], given: Sequence[Feed]) -> str:
        boxes = scenes.picked(*(given[0][name] for name in ("boxes", "scores", "selected")))
        return f"mAP {100 * scenes.mean_average_precision(boxes, truths):.2f} %"

    return judge


def found(wanted: Sequence[Feed], given: Sequence[Feed]) -> str:
    """How many of the faces are kept, how many are new."""
    sides = [
        [face for fold in folds for face in chosen(fold["scores"], fold["boxes"])]
        for folds in (wanted, given)
    ]
    verdict = faces.judge(*sides)
    counts = (verdict.kept, verdict.new, verdict.paired, verdict.unpaired)
    parts = (100 * count / verdict.wanted for count in counts)
    return "{:.2f} % kept, {:.2f} % new; one to one {:.2f} %, {:.2f} %".format(*parts)


def chosen(scores: np.ndarray, boxes: np.ndarray) -> Iterator[np.ndarray]:
    """The boxes [n, 4] of each photo that are faces, best first."""
    for confidence, places in zip(scores[:, :, 1], boxes, strict=True):
        order = np.argsort(-confidence)
        yield places[order[: int((confidence > faces.SCORE).sum())]]


def only(outputs: Feed) -> np.ndarray:
    """The only output."""
    [array] = outputs.values()
    return array


def run(model: onnx.ModelProto, feed: Feed) -> Feed:
    """The outputs for all samples, one by one where the batch is fixed."""
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    if not any(isinstance(value.shape[0], int) for value in session.get_inputs()):
        return dict(zip(names, session.run(None, dict(feed)), strict=True))
    count = len(next(iter(feed.values())))
    rows = [session.run(None, {n: a[i : i + 1] for n, a in feed.items()}) for i in range(count)]
    columns = zip(*rows, strict=True)
    return {name: np.concatenate(c) for name, c in zip(names, columns, strict=True)}


def sqnr(wanted: Sequence[Feed], given: Sequence[Feed]) -> float:
    """In dB of the outputs that are floats, the least of them."""
    ratios = []
    for name, array in wanted[0].items():
        if array.dtype.kind == "f":
            sides = ([fold[name].astype(np.float64) for fold in folds] for folds in (wanted, given))
            pairs = list(zip(*sides, strict=True))
            signal = sum(np.square(a).sum() for a, _ in pairs)
            noise = sum(np.square(b - a).sum() for a, b in pairs)
            ratios.append(float(10 * np.log10(signal / noise)) if noise else np.inf)
    return min(ratios)


def export(folder: Path) -> None:
    """Write what each fold is calibrated with, and beside it where its model is."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases():
        for index, (calibration, _) in enumerate(case.folds):
            file = folder / f"{case.path.stem}.{index}.npz"
            np.savez(file, **calibration)
            file.with_suffix(".txt").write_text(str(case.path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--options", default=";".join(OPTIONS))
    parser.add_argument("--profiles", default=",".join(PROFILES))
    parser.add_argument("--export", type=Path, metavar="DIR", help="write the calibration data")
    parser.add_argument("--judge", type=Path, metavar="DIR", help="what quantize_peers.py made")
    args = parser.parse_args()
    if args.export is not None:
        export(args.export)
        return
    print("| model | profile | options | result | SQNR |\n|---|---|---|---|---|")
    for case in cases():
        name = case.path.stem
        if args.models and name not in args.models:
            continue
        wanted = [run(onnx.load(case.path), test) for _, test in case.folds]
        print(f"| {name} | float | | {case.judge(wanted, wanted)} | |", flush=True)
        for label in PEERS if args.judge is not None else ():
            files = [args.judge / f"{name}.{i}.{label}.onnx" for i in range(len(case.folds))]
            if all(file.exists() for file in files):
                pairs = zip(files, case.folds, strict=True)
                given = [run(onnx.load(file), test) for file, (_, test) in pairs]
                result = f"{case.judge(wanted, given)} | {sqnr(wanted, given):.1f} dB"
                print(f"| {name} | {label} | | {result} |", flush=True)
        for profile in filter(None, args.profiles.split(",")):
            for label in args.options.split(";"):
                options = QuantizeOptions(profile=profile, recovery=OPTIONS[label])
                given = [
                    run(quantize_model(case.path, calibration, options).model, test)
                    for calibration, test in case.folds
                ]
                result = f"{case.judge(wanted, given)} | {sqnr(wanted, given):.1f} dB"
                print(f"| {name} | {profile} | {label} | {result} |", flush=True)


if __name__ == "__main__":
    main()
