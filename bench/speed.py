"""The README's table of speed: edgec beside ONNX Runtime, OpenVINO and IREE, each at its best.

    python bench/speed.py [NAME ...] [-O 3] [--quick] [--native] [--against ENGINE,...]
                          [--records DIR] [--output FILE.md]

By the protocol of `edgec bench`. A model whose A/A row is off is measured again, up to ATTEMPTS
times, and the try with the best A/A row stands. What was measured is kept in build/speed, so that a
run that was interrupted goes on where it was; --fresh measures anew. --records names what `edgec
tune` found. With --native edgec and ONNX
Runtime are called from C, which no other peer can be. In the end come two threads
beside one on ResNet-18, and its convolutions beside the most that the processor can do. It is an
error when a set is slower, beside the best peer, than the bounds in corpus.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import convolutions
from corpus import ROOT, SETS, models
from speedtable import Row, broken, markdown

from edgec.bench import NATIVE, bench, machine
from edgec.benchreport import BenchReport
from edgec.cache import key_of, tool_digest
from edgec.data import Sample, open_data
from edgec.errors import EdgecError
from edgec.peers import PEERS
from edgec.profilereport import Profile
from edgec.runtime.load import load

SCALED = "resnet18"
ATTEMPTS = 3
CALLS, QUICK_CALLS = 200, 60
KEPT = ROOT / "build" / "speed"
WORTH = 1.1
"""What a second thread has to win by to count as one that is used."""
LEAST_PART = 0.05
"""Of the time: what takes less is not named among its parts."""


@dataclass(frozen=True)
class Run:
    """How models are measured, and where results are kept."""

    level: int
    peers: tuple[str, ...]
    calls: int
    fresh: bool
    native: bool
    records: Path | None = None

    def row(self, name: str, model: Path) -> Row:
        """The row of one model: what was kept, else measured now and kept."""
        tuned = "" if self.records is None else ".tuned"
        file = KEPT / f"{name}.O{self.level}{tuned}{'.native' if self.native else ''}.json"
        versions = [PEERS[peer].version() for peer in self.peers if PEERS[peer].installed]
        source = hashlib.sha256(model.read_bytes()).hexdigest()
        key = key_of(tool_digest(), source, self.level, self.peers, versions, self.calls)
        if not self.fresh and file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["key"] == key:
                return Row.from_dict(kept["row"])
        row = self._measured(name, model)
        whole = file.with_suffix(".new")
        whole.write_text(json.dumps({"key": key, "row": row.to_dict()}), encoding="utf-8")
        whole.replace(file)
        return row

    def artifact(self, name: str) -> Path:
        """Where the compiled model is kept."""
        return KEPT / f"{name}.O{self.level}{'.tuned' if self.records else ''}.edgec"

    def _measured(self, name: str, model: Path) -> Row:
        artifact = self.artifact(name)
        compile_model(model, artifact, self.level, self.records)
        tries: list[BenchReport] = []
        while not (tries and tries[-1].believed) and len(tries) < ATTEMPTS:
            tries.append(
                bench(
                    artifact,
                    model,
                    against=self.peers,
                    calls=self.calls,
                    levels=sorted({2, self.level}),
                    native=self.native,
                )
            )
        report = min(tries, key=lambda each: abs(each.aa.value - 1)).to_dict()
        if len(report["engines"]) < 2:
            raise EdgecError(f"no peer runs it: {report['failed']}")
        profile, _ = convolutions.profiled(artifact, sample_of(artifact), threads_used(report))
        return Row.of(name, report, parts(profile))


def compile_model(model: Path, artifact: Path, level: int, records: Path | None) -> None:
    """In a process of its own. `EdgecError` where it fails."""
    command = [sys.executable, "-m", "edgec.cli", "compile", model, "-o", artifact, f"-O{level}"]
    command += [] if records is None else ["--records", records]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    result = json.loads(done.stdout.splitlines()[-1])
    if result["event"] != "result":
        raise EdgecError(result["what"], where=result["where"])


def sample_of(artifact: Path) -> Sample:
    """Random inputs."""
    with load(artifact) as module:
        return next(iter(open_data(module.inputs, ["random"])))


def threads_used(report: Mapping[str, Any]) -> int:
    """How many threads edgec has work for, by its trials: one, where more bring next to nothing."""
    medians = {
        trial["threads"]: trial["median_s"]
        for trial in report["tried"]
        if trial["engine"] == "edgec" and "median_s" in trial
    }
    return min(threads for threads, took in medians.items() if took < WORTH * min(medians.values()))


def parts(profile: Profile) -> str:
    """The kinds of kernels that take the time, each with its share of it and how near it is to
    what bounds it."""
    spent: dict[str, float] = defaultdict(float)
    least: dict[str, float] = defaultdict(float)
    for step in profile.costliest():
        kind = step.label.partition(" ")[0]
        spent[kind] += step.seconds
        least[kind] += step.bounds.seconds * step.calls if step.bounds else 0.0
    whole = sum(spent.values())
    named = [
        f"{kind} {100 * seconds / whole:.0f} % (at {100 * least[kind] / seconds:.0f} %)"
        for kind, seconds in sorted(spent.items(), key=lambda item: -item[1])
        if seconds > LEAST_PART * whole
    ]
    return ", ".join(named)


def report(run: Run, files: Mapping[str, Path]) -> tuple[str, list[str]]:
    """The tables as Markdown, and what failed, is not believed or outside its bounds."""
    sections, faults = [], []
    for group in SETS:
        rows = []
        for name in (name for name in group.names if name in files):
            try:
                rows.append(run.row(name, files[name]))
            except EdgecError as error:
                faults.append(f"{name}: {error.what}")
                continue
            print(markdown(rows[-1:], run.peers).splitlines()[2], flush=True)
        if rows:
            sections.append(f"**{group.title}**\n\n{markdown(rows, run.peers)}")
            faults += [f"{group.title}: {fault}" for fault in broken(rows, group.mean, group.worst)]
    artifact = run.artifact(SCALED)
    if SCALED in files and artifact.exists():
        sample = sample_of(artifact)
        sections.append(convolutions.text(SCALED, files[SCALED], artifact, sample, run.calls))
    versions = [f"{PEERS[p].title} {PEERS[p].version()}" for p in run.peers if PEERS[p].installed]
    about = [*machine().values(), f"edgec -O{run.level}", *versions, f"{run.calls} calls each"]
    about.append("from C" if run.native else "from Python")
    return "\n\n".join([*sections, f"Measured on {', '.join(about)}.\n"]), faults


def main() -> None:
    """Measure the models named, or all of the sets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("-O", dest="level", type=int, choices=range(4), default=2)
    parser.add_argument("--quick", action="store_true", help="fewer calls: for a first look")
    parser.add_argument("--fresh", action="store_true", help="measure anew what was measured")
    parser.add_argument("--native", action="store_true", help="call engines from C")
    parser.add_argument("--against", metavar="ENGINE,...", help="by default all that can be called")
    parser.add_argument("--records", type=Path, metavar="DIR", help="what tuning found")
    parser.add_argument("--output", type=Path, help="write the tables here as well")
    args = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    calls = QUICK_CALLS if args.quick else CALLS
    every_peer = NATIVE if args.native else tuple(PEERS)
    peers = tuple(args.against.split(",")) if args.against else every_peer
    run = Run(args.level, peers, calls, args.fresh, args.native, args.records)
    every = {name for group in SETS for name in group.names}
    text, faults = report(run, models(args.names or sorted(every)))
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    print(f"\n{text}")
    if faults:
        sys.exit("not as it should be:\n  " + "\n  ".join(faults))


if __name__ == "__main__":
    main()
