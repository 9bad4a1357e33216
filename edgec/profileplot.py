"""A profile as a picture: which steps take the time, and how near each is to what bounds it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from edgec.errors import UsageError
from edgec.peaks import Peaks
from edgec.profilereport import Profile, StepTime, describe, shortened
from edgec.report import duration

COLORS = {"fma": "#0b7a75", "memory": "#b7791f", None: "#9aa5b1"}
NAMES = {"fma": "bound by multiply-adds", "memory": "bound by memory", None: "bound not known"}
_INK, _FAINT, _GRID = "#1f2933", "#616e7c", "#e4e7eb"
BARS = 16
"""Steps that have a bar of their own; the rest share one."""


def plot(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Draw bars of the costliest steps and, where the peaks are known, a roofline.

    The suffix of `path` chooses the format (.svg, .png, .pdf). Raises `UsageError` where matplotlib
    is not installed or does not know the suffix.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib", where=str(path), hint="pip install 'edgec[bench]'"
        ) from error
    steps = profile.costliest()
    shown = min(len(steps), BARS + 1)
    known = profile.peaks is not None and any(step.gflops for step in steps)
    figure = Figure(figsize=(14 if known else 8, 2.2 + 0.34 * shown), layout="constrained", dpi=150)
    left, *right = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    _bars(left, profile, steps)
    if profile.peaks is not None and right:
        _roofline(right[0], profile.peaks, steps)
    about = (
        f"{profile.variant}, {profile.threads} thread{'s' if profile.threads > 1 else ''}: "
        f"the steps take {duration(profile.steps_s)}, a plain run {duration(profile.run_s)}"
    )
    if profile.peaks is not None:
        about += f"\n{profile.peaks.processor}, {describe(profile.peaks)}"
    figure.supxlabel(about, x=0.01, ha="left", fontsize=8, color=_FAINT)
    try:
        figure.savefig(path)
    except ValueError as error:
        raise UsageError(str(error), where=str(path)) from error


def _bars(axes: Any, profile: Profile, steps: Sequence[StepTime]) -> None:
    """A bar per step, its full part what the machine allows; the last holds all the rest."""
    labels = []
    for place, step in enumerate(steps[:BARS]):
        kind = step.bounds.by if step.bounds else None
        color = COLORS[kind]
        axes.barh(place, step.seconds * 1e3, height=0.72, color=color, alpha=0.3)
        note = duration(step.seconds)
        if step.bounds:
            least = min(step.bounds.seconds * step.calls, step.seconds)
            axes.barh(place, least * 1e3, height=0.72, color=color)
            note += f", {100 * least / step.seconds:.0f} % of peak"
        _annotate(axes, note, step.seconds, place)
        nodes = shortened(", ".join(step.nodes), 34)
        labels.append(f"{shortened(step.label, 30)}\n{nodes}" if nodes else step.label)
    rest = steps[BARS:]
    if rest:
        total = sum(step.seconds for step in rest)
        axes.barh(len(labels), total * 1e3, height=0.72, color=COLORS[None], alpha=0.3)
        _annotate(axes, duration(total), total, len(labels))
        labels.append(f"{len(rest)} more")
    axes.set_yticks(range(len(labels)), labels, color=_INK, fontsize=7)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.3)
    axes.set_xlabel("ms a run; full color: what the machine's peak allows", color=_INK)
    axes.set_title(profile.model, loc="left", color=_INK, weight="bold")
    _plain(axes, "x")


def _roofline(axes: Any, peaks: Peaks, steps: Sequence[StepTime]) -> None:
    """Operations a second over operations a byte, a dot per step, as large as it is costly."""
    dots = [step for step in steps if step.gflops and step.nbytes]
    at = [2 * step.macs / step.nbytes for step in dots if step.nbytes]
    if not at:
        return
    low, high = min(*at, 0.5) / 2, max(*at, 64) * 2
    top = 2e-9 * peaks.fma_per_s
    for (footprint, _), name in (
        (peaks.bandwidth[0], "nearest cache"),
        (peaks.bandwidth[-1], "memory"),
    ):
        rate = 1e-9 * peaks.bytes_per_s(footprint)
        knee = min(max(top / rate, low), high)
        axes.plot([low, knee, high], [low * rate, top, top], color=_FAINT, linewidth=1)
        axes.annotate(
            f"{name}: {rate:.0f} GB/s",
            (low, low * rate),
            (6, 2),
            textcoords="offset points",
            fontsize=7,
            color=_FAINT,
        )
    whole = max(step.seconds for step in dots)
    for kind in ("fma", "memory", None):
        mine = [
            i for i, step in enumerate(dots) if (step.bounds.by if step.bounds else None) == kind
        ]
        if mine:
            axes.scatter(
                [at[i] for i in mine],
                [dots[i].gflops for i in mine],
                [20 + 180 * dots[i].seconds / whole for i in mine],
                color=COLORS[kind],
                alpha=0.6,
                edgecolors="white",
                label=NAMES[kind],
            )
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set_xlabel("floating-point operations a byte read and written", color=_INK)
    axes.set_ylabel("GFLOP/s", color=_INK)
    axes.set_title(f"roofline: {top:.0f} GFLOP/s", loc="left", color=_INK)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    _plain(axes, "both")


def _annotate(axes: Any, text: str, seconds: float, place: int) -> None:
    axes.annotate(
        text,
        (seconds * 1e3, place),
        (6, 0),
        textcoords="offset points",
        va="center",
        fontsize=7,
        color=_INK,
    )


def _plain(axes: Any, grid: str) -> None:
    axes.grid(axis=grid, color=_GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
