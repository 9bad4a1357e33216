"""Which means of winning accuracy back are used, and when: before calibration, or after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edgec.data import Sample
from edgec.graph import Graph
from edgec.passes.equalize_layers import EqualizeLayers
from edgec.quantize.calibrate import Run
from edgec.quantize.plan import Plan
from edgec.quantize.profiles import Profile
from edgec.quantize.recover.refine import refine
from edgec.quantize.recover.smooth import LargestInChannels, smooth, smoothed
from edgec.rewrite import optimize

Rounding = Literal["nearest", "adaround", "gptq"]


@dataclass(frozen=True)
class Recovery:
    """What is done so that quantization costs less accuracy.

    Attributes:
        equalize: give the channels between layers the same range in the weights of both.
        smooth: move the size of channels from activations into weights, by this exponent, 0..1.
        rounding: of weights: to the nearest integer, or so that results change least.
        bias_correction: fold the mean error of each layer into its bias.
    """

    equalize: bool = False
    smooth: float | None = None
    rounding: Rounding = "nearest"
    bias_correction: bool = False

    @property
    def refines(self) -> bool:
        """Whether `after` has something to do."""
        return self.rounding != "nearest" or self.bias_correction

    def before(self, graph: Graph, samples: Iterable[Sample]) -> None:
        """Move factors between the layers of `graph`, which computes the same then."""
        if self.equalize:
            optimize(graph, [EqualizeLayers()])
        if self.smooth is None:
            return
        largest = LargestInChannels(graph)
        tensors = smoothed(graph)
        if tensors:
            with Run(graph, tensors) as run:
                for sample in samples:
                    largest.add(run(sample))
        smooth(graph, self.smooth, largest.found)

    def after(self, graph: Graph, plan: Plan, profile: Profile, samples: Iterable[Sample]) -> None:
        """Refine the weights of `plan` and the biases of `graph`, in place."""
        if self.refines:
            refine(
                graph,
                plan,
                profile,
                samples,
                how=self.rounding,
                correct_bias=self.bias_correction,
            )
