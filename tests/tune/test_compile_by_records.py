"""`edgec compile --records`: the artifact is made by what records say, and by nothing else."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Edgec
from samples import sample

from edgec.peaks import processor_name
from edgec.runtime.load import read_manifest
from edgec.targets import host
from edgec.targets.cpu import schedule
from edgec.targets.cpu.knobs import SPACE_VERSION, Recorder
from edgec.tune import lookup
from edgec.tune.records import FILE, Record, Store, features_key


@pytest.fixture(scope="session")
def found(digits: Path) -> list[Record]:
    """Of each kernel of the digits model that has a knob, a record of another choice than the
    rule's."""
    from edgec.graph import load
    from edgec.lower.build import kernel_key
    from edgec.lower.lowering import lower_graph
    from edgec.passes import LEVELS
    from edgec.rewrite import optimize

    graph = load(digits)
    optimize(graph, LEVELS[2])
    records = []
    for function in lower_graph(graph, "digits", [], host()).kernels.values():
        path = Recorder({})
        schedule(function, host(), path)
        others = {
            choice.knob: value
            for choice in path.choices
            for value in choice.options
            if value != choice.rule
        }
        if others:
            knob, value = next(iter(others.items()))
            facts = {"target": features_key(host()), "space": SPACE_VERSION, "label": str(knob)}
            decisions = {"decisions": {knob: value}}
            records.append(sample(len(records), kernel=kernel_key(function), **facts, **decisions))
    if not records:
        pytest.skip("no schedule of the model's kernels has a knob")
    assert len(records) >= 3
    return records


def kernels(artifact: Path) -> dict[str, Any]:
    """What the manifest says of the kernels' tuning, by name."""
    [variant] = read_manifest(artifact)["variants"]
    return {kernel["name"]: kernel.get("tuned") for kernel in variant["kernels"]}


def compile_by(edgec: Edgec, digits: Path, store: Store, output: Path, *words: object) -> Any:
    done = edgec("compile", digits, "-o", output, "--records", store.path, "--json", *words)
    assert done.code == 0, done.err
    return done.result


def test_compile_by_records(
    edgec: Edgec, digits: Path, digits_artifact: Path, found: list[Record], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    store.append(*found)
    facts = compile_by(edgec, digits, store, tmp_path / "a.edgec")
    [variant] = facts["variants"]
    assert variant["tuned"] == len(found)
    assert variant["verified"] == "device"
    tuned = [each for each in kernels(tmp_path / "a.edgec").values() if each]
    assert len(tuned) == len(found)
    [record] = [r for r in found if r.seconds == min(each.seconds or 0 for each in found)]
    origin = {"from": "records", "machine": record.machine, "date": record.date, "threads": 1}
    assert {**origin, "gain": 2.0} in tuned
    assert (tmp_path / "a.edgec").read_bytes() != digits_artifact.read_bytes()
    done = edgec("compile", digits, "-o", tmp_path / "a.edgec", "--records", store.path)
    assert f"kernels ({len(found)} tuned)" in done.out


def test_same_records_same_bytes(
    edgec: Edgec, digits: Path, found: list[Record], tmp_path: Path
) -> None:
    """Order, copies, damage, and records of other kernels change nothing, and keep the cache's
    entry."""
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    first.append(*found)
    second.append(*reversed(found), *found, sample(1), sample(2, kernel="b" * 64))
    with open(second.file, "ab") as stream:
        stream.write(b"torn")
    compile_by(edgec, digits, first, tmp_path / "a.edgec")
    facts = compile_by(edgec, digits, second, tmp_path / "b.edgec")
    assert facts["cached"]
    anew = compile_by(edgec, digits, second, tmp_path / "c.edgec", "--no-cache")
    assert not anew["cached"]
    whole = [(tmp_path / f"{name}.edgec").read_bytes() for name in "abc"]
    assert whole[0] == whole[1] == whole[2]


def test_relevant_records_change_the_artifact(
    edgec: Edgec, digits: Path, digits_artifact: Path, found: list[Record], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    store.append(found[0])
    assert compile_by(edgec, digits, store, tmp_path / "a.edgec")["variants"][0]["tuned"] == 1
    store.append(found[1])
    facts = compile_by(edgec, digits, store, tmp_path / "a.edgec")
    assert (facts["cached"], facts["variants"][0]["tuned"]) == (False, 2)
    nothing = Store(tmp_path / "nothing")
    nothing.append(sample(1))
    facts = compile_by(edgec, digits, nothing, tmp_path / "a.edgec")
    assert (facts["cached"], facts["variants"][0]["tuned"]) == (True, 0)
    assert (tmp_path / "a.edgec").read_bytes() == digits_artifact.read_bytes()
    facts = compile_by(edgec, digits, store, tmp_path / "a.edgec", "--threads", "3")
    assert facts["variants"][0]["tuned"] == 0


def test_what_ships_with_edgec_is_for_this_machine_only(
    edgec: Edgec,
    digits: Path,
    found: list[Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A named target comes to the same on every machine that compiles for it."""
    monkeypatch.setattr(lookup, "BUNDLED", tmp_path)
    store = Store(tmp_path / "store")
    store.append(*found)
    store.export(lookup.shipped(processor_name()))
    output = tmp_path / "a.edgec"
    expected = [([], len(found)), (["--no-bundled-records"], 0), (["--target", host().name], 0)]
    for words, tuned in expected:
        done = edgec("compile", digits, "-o", output, "--json", *words)
        assert done.code == 0, done.err
        assert done.result["variants"][0]["tuned"] == tuned, words


def test_a_cached_artifact_needs_no_tvm(
    edgec: Edgec, digits: Path, found: list[Record], tmp_path: Path, session_cache: Path
) -> None:
    store = Store(tmp_path)
    store.append(*found)
    compile_by(edgec, digits, store, tmp_path / "a.edgec")
    words = ["compile", str(digits), "-o", str(tmp_path / "b.edgec"), "--records", str(tmp_path)]
    code = f"import sys, edgec.cli\nedgec.cli.main({words})\nsys.exit('tvm' in sys.modules)"
    environment = os.environ | {"EDGEC_CACHE_DIR": str(session_cache)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.returncode == 0
    assert (tmp_path / "a.edgec").read_bytes() == (tmp_path / "b.edgec").read_bytes()


MISFITS = [
    {"no such knob": 1},
    {"trace": "[[],[]]"},
    {"trace": '[[["Split",["l99",1],[0,1],["l100"]]],[]]'},
    {"trace": '[[["GetSBlock",[],["absent","main"],["b0"]]],[]]'},
]


@pytest.mark.parametrize("decisions", [None, *MISFITS], ids=range(len(MISFITS) + 1))
def test_records_that_do_not_fit(
    edgec: Edgec,
    digits: Path,
    found: list[Record],
    tmp_path: Path,
    decisions: dict[str, int | str] | None,
) -> None:
    """Knobs and values that are not there, traces that do not apply: the rule's choice stands."""
    store = Store(tmp_path / "store")
    record = found[1]
    decisions = decisions or dict.fromkeys(record.decisions, 10**9)
    store.append(dataclasses.replace(record, decisions=decisions))
    facts = compile_by(edgec, digits, store, tmp_path / "a.edgec")
    assert facts["variants"][0]["verified"] == "device"


def test_wrong_values_fall_back_to_the_rule(
    edgec: Edgec,
    digits: Path,
    found: list[Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A record whose kernel computes something else costs its speed, not the artifact."""
    from edgec import compiler
    from edgec.errors import VerifyError

    prove = compiler.prove

    def strict(draft: Path, variant: Any, *others: Any) -> Any:
        if variant.tuned:
            raise VerifyError("outputs differ")
        return prove(draft, variant, *others)

    monkeypatch.setattr(compiler, "prove", strict)
    store = Store(tmp_path / "store")
    store.append(*found[:2])
    done = edgec(
        "compile", digits, "-o", tmp_path / "a.edgec", "--records", store.path, "--no-cache"
    )
    assert done.code == 0, done.err
    assert "note: tuning records are too inaccurate: outputs differ" in done.err
    assert not any(kernels(tmp_path / "a.edgec").values())


def test_no_store(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    words = ["compile", digits, "-o", tmp_path / "a.edgec", "--records", tmp_path / "absent"]
    done = edgec(*words)
    assert (done.code, list(tmp_path.iterdir())) == (11, [])
    assert edgec("compile", digits, "--threads", "0").code == 2


def test_make_knows_of_the_records(
    edgec: Edgec, digits: Path, found: list[Record], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    store.append(*found)
    compile_by(edgec, digits, store, tmp_path / "a.edgec", "-MD")
    assert str(tmp_path / "store" / FILE) in (tmp_path / "a.edgec.d").read_text()
