"""docs/op-coverage.md: what `edgec compile --target host` makes of the standard's own node cases.

    python bench/op_coverage.py [--sample N] [--jobs N]

Every case of onnx.backend.test.case.node is compiled, its artifact run, and the results compared
with those that the case gives. The verdicts are kept in build/op-coverage.jsonl as they come, so a
run that was interrupted goes on where it stood, until edgec's sources change. With --sample, only
every N-th case is tried and the page is printed.

Ends with an error where a case gives a wrong result.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from edgec.cache import tool_digest
from edgec.compiler import compile_model
from edgec.errors import EdgecError
from edgec.graph import load
from edgec.options import Options
from edgec.packing import typed
from edgec.passes import LEVELS
from edgec.rewrite import optimize
from edgec.runtime.load import load as load_artifact
from edgec.tensors import is_static

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.lower.node_cases import Feeds, cases, has_plain_tensors, judge  # noqa: E402

PAGE = ROOT / "docs" / "op-coverage.md"
VERDICTS = ROOT / "build" / "op-coverage.jsonl"
KINDS = ("right", "bound", "refused", "wrong", "other")
REASONS = 3


class Judged(NamedTuple):
    """A case: its operator, its verdict, and whether the shapes of outputs follow from inputs'."""

    name: str
    op: str
    kind: str
    why: str
    static: bool


def compiled(model: onnx.ModelProto, declared: bool) -> Callable[[Feeds], list[np.ndarray]]:
    """Runs the artifact of a model."""
    folder = tempfile.TemporaryDirectory(prefix="edgec-coverage-")
    artifact = Path(folder.name) / "case.edgec"
    compile_model(model, artifact, Options(name="case", trusted=True, jobs=1), reuse=False)

    def run(feeds: Feeds) -> list[np.ndarray]:
        with folder:
            module = load_artifact(artifact)
            outputs = module.run({tensor.name: feeds[tensor.name] for tensor in module.inputs})
            return [
                typed(outputs[tensor.name], tensor.dtype, tensor.shape) for tensor in module.outputs
            ]

    return run


def judged(index: int) -> Judged:
    """The verdict on one case of the list."""
    case = cases()[index]
    try:
        kind, why = judge(case, compiled)
    except AssertionError as error:
        kind, why = "wrong", next((x for x in str(error).splitlines() if x.strip()), "")
    except EdgecError as error:
        kind, why = "refused", error.what
    model = unexpanded(case.name).model
    op = model.graph.node[0].op_type
    return Judged(case.name, op, kind, reason(why), has_static_shapes(model))


def unexpanded(name: str) -> Any:
    """The case of one operator that the case called `name` is, or is the expanded function of."""
    return _by_name()[name.partition("_expanded")[0]]


@functools.cache
def _by_name() -> dict[str, Any]:
    return {case.name: case for case in cases()}


def reason(why: str) -> str:
    """A reason for refusal on one line, without the names of tensors and nodes."""
    if "ONNXRuntimeError" in why:
        return "ONNX Runtime, which the results are checked against, cannot run it"
    nodes = re.findall(r"\n  (\S+) '[^\n]*?': ([^\n]*)", why)
    text = "; ".join(dict.fromkeys(f"{op}: {said}" for op, said in nodes)) or why
    return re.sub(r"(?<!\w)'[^']*' ?", "", " ".join(text.split()))[:160]


def has_static_shapes(model: onnx.ModelProto) -> bool:
    """Whether the shapes of the outputs follow from those of the inputs alone."""
    if not has_plain_tensors(model):
        return False
    undeclared = onnx.ModelProto()
    undeclared.CopyFrom(model)
    for info in undeclared.graph.output:
        info.type.tensor_type.ClearField("shape")
    try:
        graph = load(undeclared, symbolic=True, trusted=True)
        optimize(graph, LEVELS[1])
    except EdgecError:
        return False
    return all(map(is_static, graph.gs.outputs))


def verdicts(indices: Sequence[int], jobs: int, kept: Path | None) -> Iterator[Judged]:
    """Judge the cases, those first whose verdict was `kept`; a line of progress now and then."""
    names = {cases()[i].name: i for i in indices}
    left = dict(names)
    for each in _read(kept):
        if left.pop(each.name, None) is not None:
            yield each
    started, done = time.monotonic(), 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context) as pool:
        futures = [pool.submit(judged, index) for index in left.values()]
        try:
            for future in as_completed(futures):
                each = future.result()
                if kept is not None:
                    with kept.open("a", encoding="utf-8") as file:
                        file.write(json.dumps([tool_digest(), *each]) + "\n")
                done += 1
                if done % 20 == 0 or done == len(futures):
                    rest = (time.monotonic() - started) / done * (len(futures) - done)
                    print(f"{done} of {len(futures)}, {rest / 60:.0f} min left", file=sys.stderr)
                yield each
        finally:
            pool.shutdown(cancel_futures=True)


def _read(kept: Path | None) -> Iterator[Judged]:
    if kept is None or not kept.exists():
        return
    for line in kept.read_text(encoding="utf-8").splitlines():
        digest, *fields = json.loads(line)
        if digest == tool_digest():
            yield Judged(*fields)


def page(found: Sequence[Judged]) -> str:
    """The page in Markdown."""
    tensors = [each for each in found if each.kind != "other"]
    static = [each for each in tensors if each.static]
    groups: dict[str, list[Judged]] = defaultdict(list)
    for each in sorted(found):
        groups[each.op].append(each)
    lines = [
        "# Operators, by the standard's own tests",
        "",
        f"`make op-coverage` writes this page. Each of the {len(found):,} node cases of onnx "
        f"{onnx.__version__} is compiled",
        "by `edgec compile --target host`, run, and compared with the results that the case gives.",
        "",
        "| cases | number | right | right with constants | refused | wrong |",
        "|---|---|---|---|---|---|",
        _totals("all", found),
        _totals("inputs and outputs are tensors of numbers", tensors),
        _totals("of these, shapes static", static),
        "",
        "*Right with constants*: the case feeds as an input what decides a shape (the `shape` of a",
        "Reshape); compiled with that input made constant, it is right. *No tensors*: an input or",
        "output is a sequence, an optional or a tensor of strings. *Dynamic*: the shape of an",
        "output depends on values of inputs, or ONNX's shape inference cannot tell it.",
        "",
        "| operator | cases | right | with constants | refused | wrong | no tensors | dynamic "
        "| refused since |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_row(op, group) for op, group in sorted(groups.items())),
    ]
    return "\n".join([*lines, ""])


def _totals(what: str, found: Sequence[Judged]) -> str:
    kinds = Counter(each.kind for each in found)
    cells = [f"{kinds[k]:,} ({kinds[k] / max(len(found), 1):.1%})" for k in KINDS[:-1]]
    return f"| {what} | {len(found):,} | {' | '.join(cells)} |"


def _row(op: str, group: Sequence[Judged]) -> str:
    kinds = Counter(each.kind for each in group)
    dynamic = sum(not each.static and each.kind != "other" for each in group)
    why = Counter(each.why for each in group if each.kind == "refused")
    listed = sorted(why.items(), key=lambda item: (-item[1], item[0]))
    text = "; ".join(f"{count} x {said}" for said, count in listed[:REASONS])
    text += f"; {len(listed) - REASONS} other reasons" if len(listed) > REASONS else ""
    numbers = [len(group), *(kinds[kind] for kind in KINDS), dynamic]
    cells = [op, *(str(number or "") for number in numbers), text.replace("|", "\\|")]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Judge every case and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sample", type=int, metavar="N", help="try every N-th case; print")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes")
    args = parser.parse_args()
    indices = range(0, len(cases()), args.sample or 1)
    VERDICTS.parent.mkdir(exist_ok=True)
    try:
        found = list(verdicts(indices, args.jobs, None if args.sample else VERDICTS))
    except KeyboardInterrupt:
        sys.exit(f"interrupted; what is known is in {VERDICTS.relative_to(ROOT)}")
    if args.sample:
        print(page(found))
    else:
        PAGE.write_text(page(found), encoding="utf-8")
    wrong = [each.name for each in found if each.kind == "wrong"]
    if wrong:
        sys.exit(f"wrong: {', '.join(sorted(wrong))}")


if __name__ == "__main__":
    main()
