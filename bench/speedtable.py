"""The table of `speed.py`: models in sets, edgec beside its peers, and what it all comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgec.peers import PEERS
from edgec.protocol import BELIEVED
from edgec.report import duration


@dataclass(frozen=True)
class Side:
    """One engine on one model: its median time at the file and number of threads it is best at."""

    ms: float
    threads: int
    file: str


@dataclass(frozen=True)
class Row:
    """One model. `ratio` is edgec's time over that of `best`, the fastest peer, with two
    percentiles; `aa` is a peer against itself; `parts` says where edgec's time goes."""

    name: str
    edgec: Side
    peers: Mapping[str, Side]
    best: str
    ratio: tuple[float, float, float]
    aa: float
    failed: Mapping[str, str]
    parts: str

    @property
    def believed(self) -> bool:
        """Whether the A/A ratio is near enough to one."""
        return BELIEVED[0] <= self.aa <= BELIEVED[1]

    @staticmethod
    def of(name: str, report: Mapping[str, Any], parts: str) -> Row:
        """From what `edgec bench --json` says; edgec is its first engine."""
        edgec, *others = report["engines"]
        best = min(others, key=lambda each: each["median_ms"])
        times = best["ratio"]
        return Row(
            name=name,
            edgec=_side(edgec),
            peers={each["engine"]: _side(each) for each in others},
            best=best["engine"],
            ratio=(1 / times["value"], 1 / times["p90"], 1 / times["p10"]),
            aa=report["aa"]["value"],
            failed=report["failed"],
            parts=parts,
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `from_dict` reads it."""
        return asdict(self)

    @staticmethod
    def from_dict(facts: Mapping[str, Any]) -> Row:
        """What `to_dict` made."""
        sides = {name: Side(**side) for name, side in facts["peers"].items()}
        made = {"edgec": Side(**facts["edgec"]), "peers": sides, "ratio": tuple(facts["ratio"])}
        return Row(**{**facts, **made})


def geometric_mean(values: Sequence[float]) -> float:
    """Of at least one positive number."""
    return math.exp(sum(map(math.log, values)) / len(values))


def markdown(rows: Sequence[Row], peers: Sequence[str]) -> str:
    """The rows as a table, the last line of it their geometric mean: of edgec over each peer, and
    over the best."""
    titles = [PEERS[peer].title for peer in peers]
    header = ("model", "edgec", *titles, "edgec / best peer", "A/A", "where edgec's time goes")
    lines = [_line(header), "|" + "---|" * len(header)]
    for row in rows:
        value, low, high = row.ratio
        cells = [_peer(row, peer) for peer in peers]
        ratio = f"**{value:.2f}** ({low:.2f} .. {high:.2f})"
        aa = f"{row.aa:.2f}" + ("" if row.believed else " (not believed)")
        lines.append(_line((row.name, _time(row.edgec), *cells, ratio, aa, row.parts)))
    if rows:
        means = [_mean(rows, peer) for peer in peers]
        whole = geometric_mean([row.ratio[0] for row in rows])
        lines.append(_line(("geometric mean", "", *means, f"**{whole:.2f}**", "", "")))
    return "\n".join(lines)


def broken(rows: Sequence[Row], mean: float, worst: float) -> list[str]:
    """Which rows are not believed, and which bounds they break: of the geometric mean of the
    ratios, and of each."""
    found = [f"{row.name}: A/A {row.aa:.2f}" for row in rows if not row.believed]
    found += [f"{r.name}: {r.ratio[0]:.2f}, above {worst}" for r in rows if r.ratio[0] > worst]
    whole = geometric_mean([row.ratio[0] for row in rows])
    return found + ([f"geometric mean {whole:.2f}, above {mean}"] if whole > mean else [])


def _side(engine: Mapping[str, Any]) -> Side:
    return Side(engine["median_ms"], engine["threads"], engine["file"])


def _time(side: Side) -> str:
    return f"{duration(side.ms * 1e-3)} ({side.threads})"


def _peer(row: Row, peer: str) -> str:
    if peer not in row.peers:
        return "fails" if peer in row.failed else ""
    side = row.peers[peer]
    return f"{duration(side.ms * 1e-3)} ({side.threads}, {side.file})"


def _mean(rows: Sequence[Row], peer: str) -> str:
    ratios = [row.edgec.ms / row.peers[peer].ms for row in rows if peer in row.peers]
    return f"edgec / it: {geometric_mean(ratios):.2f}" if ratios else ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
