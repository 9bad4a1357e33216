"""edgec on this machine's GPU beside torch.compile and ONNX Runtime, CUDA graphs on all sides.

    python bench/gpu.py [NAME ...] [--calls N] [--tf32]

Inputs and outputs stay on the GPU. All sides multiply in float32, with `--tf32` in TF32. Each side
runs alone, `--calls` times after as many warm-up runs, the median and the tenths are printed, then
the geometric mean of edgec's time beside the better peer's. Needs torch, onnx2torch and
onnxruntime-gpu for the peers that are to be there; says which are not. Where there is no GPU it
says so and ends with code 10.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus import models

from edgec import load, targets
from edgec.compiler import compile_model
from edgec.data import open_data
from edgec.gpus import local_gpus
from edgec.options import Options

Runner = Callable[[], None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--tf32", action="store_true", help="on all sides")
    args = parser.parse_args()
    if not local_gpus():
        print("no NVIDIA GPU here: nothing was measured", file=sys.stderr)
        return 10
    gpu = local_gpus()[0]
    named = [name for name in targets.names() if name.startswith("cuda-sm_")]
    target = max(
        (name for name in named if gpu.runs(targets.resolve(name))),
        key=lambda name: int(name.removeprefix("cuda-sm_")),
    )
    print(f"{gpu.name} ({gpu.arch}), driver of CUDA {gpu.cuda}, edgec for {target}")
    print("| model | edgec ms | torch.compile ms | ONNX Runtime ms | edgec / best |")
    print("|---|---|---|---|---|")
    ratios = []
    for name, path in models(args.names).items():
        times = measured(path, target, args.calls, args.tf32)
        best = min(t for side, t in times.items() if side != "edgec" and t is not None)
        ratios.append(times["edgec"] / best)
        cells = " | ".join("-" if t is None else f"{t:.3f}" for t in times.values())
        print(f"| {name} | {cells} | {ratios[-1]:.2f} |", flush=True)
    print(f"geometric mean {math.exp(statistics.fmean(map(math.log, ratios))):.2f}")
    return 0


def measured(path: Path, target: str, calls: int, tf32: bool) -> dict[str, Any]:
    """Median milliseconds by side; None where a side cannot run the model."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / "model.edgec"
        compile_model(path, artifact, Options(targets=(target,), tf32=tf32))
        with load(artifact, device=1) as module:
            sample = dict(next(iter(open_data(module.inputs, ["random"], seed=1))))
            inputs = [torch.from_numpy(sample[t.name]).cuda() for t in module.inputs]
            outputs = [
                torch.empty(t.nbytes, dtype=torch.uint8, device="cuda") for t in module.outputs
            ]
            stream = torch.cuda.Stream()
            places = [x.data_ptr() for x in inputs], [y.data_ptr() for y in outputs]

            def edgec() -> None:
                module.run_at(*places, stream.cuda_stream)

            times: dict[str, Any] = {"edgec": median(edgec, stream.synchronize, calls)}
        named = dict(zip(sample, inputs, strict=True))
        for side, make in (("torch", with_torch), ("onnxruntime", with_onnxruntime)):
            try:
                times[side] = median(make(path, named, tf32), torch.cuda.synchronize, calls)
            except Exception as error:
                print(f"{path.stem}: {side}: {error}", file=sys.stderr)
                times[side] = None
    return times


def median(run: Runner, wait: Runner, calls: int) -> float:
    """Median milliseconds of a run and the wait for it."""
    times = []
    for _ in range(2 * calls):
        start = time.perf_counter_ns()
        run()
        wait()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return statistics.median(times[calls:])


def with_torch(path: Path, inputs: dict[str, Any], tf32: bool) -> Runner:
    """The model by torch.compile with CUDA graphs."""
    import onnx2torch
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    compiled = torch.compile(onnx2torch.convert(str(path)).eval().cuda(), mode="max-autotune")

    def run() -> None:
        with torch.inference_mode():
            compiled(*inputs.values())

    return run


def with_onnxruntime(path: Path, inputs: dict[str, Any], tf32: bool) -> Runner:
    """The model by ONNX Runtime's CUDA provider with CUDA graphs."""
    import onnxruntime

    options = {"enable_cuda_graph": "1", "use_tf32": str(int(tf32))}
    session = onnxruntime.InferenceSession(
        str(path), providers=[("CUDAExecutionProvider", options)]
    )
    binding = session.io_binding()
    kept = []
    for name, tensor in inputs.items():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(tensor.cpu().numpy(), "cuda", 0)
        kept.append(value)
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            output.shape, "float32", "cuda", 0
        )
        kept.append(value)
        binding.bind_ortvalue_output(output.name, value)

    def run() -> None:
        session.run_with_iobinding(binding)

    return run


if __name__ == "__main__":
    sys.exit(main())
