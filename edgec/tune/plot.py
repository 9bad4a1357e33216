"""A tuning run as a picture: the model's best latency over time."""

from __future__ import annotations

import os
from pathlib import Path

from edgec.errors import UsageError
from edgec.tune.report import Tuned

_ACCENT, _INK, _FAINT, _GRID = "#0b7a75", "#1f2933", "#616e7c", "#e4e7eb"


def check_plot(path: str | os.PathLike[str]) -> None:
    """Raises `UsageError`, before any work, where `plot` could not draw to `path`."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib", where=str(path), hint="pip install 'edgec[bench]'"
        ) from error
    known = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".") not in known:
        raise UsageError(
            f"no picture is called '{Path(path).suffix}'",
            where=str(path),
            hint="known: " + ", ".join(sorted(known)),
        )
    if not Path(path).absolute().parent.is_dir():
        raise UsageError("its folder does not exist", where=str(path))


def plot(tuned: Tuned, path: str | os.PathLike[str]) -> None:
    """Draw the curve; the suffix of `path` chooses the format. Raises `UsageError` as `check_plot`
    does."""
    check_plot(path)
    from matplotlib.figure import Figure

    found = tuned.found
    seconds = [at for at, _ in found.curve] + [max(found.seconds, found.curve[-1][0])]
    latency = [1e3 * best for _, best in found.curve] + [1e3 * found.curve[-1][1]]
    figure = Figure(figsize=(8, 4.5), layout="constrained", dpi=150)
    axes = figure.subplots()
    axes.step(seconds, latency, where="post", color=_ACCENT, linewidth=1.6)
    axes.set_ylim(min(latency) * 0.95, max(latency) * 1.02)
    axes.set_xlim(0, max(seconds[-1], 1e-3))
    axes.set_xlabel("seconds of tuning", color=_INK)
    axes.set_ylabel("ms a run, estimated from its kernels", color=_INK)
    axes.set_title(tuned.model, loc="left", color=_INK, weight="bold")
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=_INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.supxlabel(
        f"{tuned.target}, {tuned.threads} thread{'s' if tuned.threads > 1 else ''}; "
        f"{found.trials} trials; the whole model: {tuned.outcome()}",
        x=0.01,
        ha="left",
        fontsize=8,
        color=_FAINT,
    )
    figure.savefig(path)
