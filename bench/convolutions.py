"""ResNet-18 alone: two threads beside one, and its convolutions beside the processor's peak."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgec import protocol
from edgec.cache import Cache
from edgec.data import Sample
from edgec.graph import load
from edgec.inspect import macs
from edgec.peaks import Peaks, measure
from edgec.peers import EngineProcess
from edgec.profile import profile
from edgec.profilereport import Profile
from edgec.report import duration
from edgec.runtime.load import read_manifest
from edgec.targets import resolve

RUNS = 50


@dataclass(frozen=True)
class Rate:
    """All convolutions of a model with so many threads: multiply-accumulates, seconds, and the
    most multiply-accumulates a second that as many threads do."""

    threads: int
    macs: int
    seconds: float
    peak_per_s: float

    @property
    def share(self) -> float:
        """Of the peak."""
        return self.macs / self.seconds / self.peak_per_s


def profiled(artifact: Path, sample: Sample, threads: int) -> tuple[Profile, Peaks]:
    """Where the time goes, held against the peaks of this machine, and these."""
    target = read_manifest(artifact)["variants"][0]["target"]["name"]
    peaks = measure(resolve(target), threads, Cache.default())
    return profile(artifact, sample, threads=threads, runs=RUNS, peaks=peaks), peaks


def convolutions(model: Path, artifact: Path, sample: Sample, threads: int) -> Rate:
    """The rate of all Conv nodes of `model`, by the steps that compute them.

    Their multiply-accumulates are those of the definition, however a kernel computes it.
    """
    report, peaks = profiled(artifact, sample, threads)
    shapes = {name: array.shape for name, array in sample.items()}
    nodes = load(model, shapes=shapes).gs.nodes
    costs = {node.name or node.outputs[0].name: macs(node) for node in nodes if node.op == "Conv"}
    steps = [step for step in report.steps if not costs.keys().isdisjoint(step.nodes)]
    found = {name for step in steps for name in step.nodes if name in costs}
    return Rate(
        threads,
        sum(costs[name] or 0 for name in found),
        sum(step.seconds for step in steps),
        peaks.fma_per_s,
    )


def scaling(artifact: Path, sample: Sample, calls: int) -> tuple[protocol.Times, protocol.Times]:
    """Times with one and with two threads, in alternating bursts."""
    with ExitStack() as stack:
        engines = []
        for threads in (1, 2):
            engine = stack.enter_context(EngineProcess("edgec"))
            facts = engine.load(artifact, threads)
            engine.bind({name: sample[name] for name in facts["inputs"]})
            engine.stop()
            engines.append(engine)
        one, two = protocol.alternate(engines, calls)
    return one, two


def text(name: str, model: Path, artifact: Path, sample: Sample, calls: int) -> str:
    """Both, as lines of Markdown."""
    one, two = scaling(artifact, sample, calls)
    ratio = protocol.Ratio.of(one, two)
    lines = [
        f"- {name}, two threads beside one: {duration(one.median)} / {duration(two.median)} = "
        f"**{ratio.value:.2f}** ({ratio.p10:.2f} .. {ratio.p90:.2f})"
    ]
    for threads in (1, 2):
        rate = convolutions(model, artifact, sample, threads)
        lines.append(
            f"- its convolutions, {threads} thread{'s' if threads > 1 else ''}: "
            f"{2e-9 * rate.macs / rate.seconds:.0f} GFLOP/s, **{100 * rate.share:.0f} %** of "
            f"the {2e-9 * rate.peak_per_s:.0f} measured as the peak"
        )
    return "\n".join(lines)
