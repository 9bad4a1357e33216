"""Databases of MetaSchedule: what TVM loads of ours, and what we take of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command import Edgec
from samples import PLAIN, sample

from edgec.targets import host
from edgec.tune import trace
from edgec.tune.metaschedule import RECORDS, WORKLOADS, read_database
from edgec.tune.record import NotARecord, decode, encode
from edgec.tune.records import Store, features_key

LOADED_BY_TVM = """
import sys
import edgec.lower
from edgec.lower.build import kernel_key
from tvm import s_tir
from tvm.s_tir.meta_schedule.database import JSONDatabase
database = JSONDatabase(work_dir=sys.argv[1])
for record in database.get_all_tuning_records():
    schedule = s_tir.Schedule(record.workload.mod)
    record.trace.apply_to_schedule(schedule, remove_postproc=False)
    [best] = database.get_top_k(database.commit_workload(record.workload.mod), 1)
    assert best.run_secs[0].value <= record.run_secs[0].value
    [seconds] = record.run_secs
    print(kernel_key(record.workload.mod["main"]), seconds.value, len(schedule.trace.insts))
"""


@pytest.fixture(scope="session")
def keys(digits: Path) -> list[str]:
    """Of the kernels of the digits model, for this machine."""
    from edgec.graph import load
    from edgec.lower.build import kernel_key
    from edgec.lower.lowering import lower_graph
    from edgec.passes import LEVELS
    from edgec.rewrite import optimize

    graph = load(digits)
    optimize(graph, LEVELS[2])
    kernels = lower_graph(graph, "digits", [], host()).kernels
    return [kernel_key(function) for function in kernels.values()]


@pytest.fixture
def exported(edgec: Edgec, digits: Path, keys: list[str], tmp_path: Path) -> Path:
    """A database of the rule's own choice for each kernel, with different times."""
    store = Store(tmp_path / "store")
    mine = {"target": features_key(host()), "decisions": {}}
    store.append(*(sample(n, kernel=key, **mine) for n, key in enumerate(keys)))
    store.append(
        sample(98, kernel=keys[0], target="another"), sample(99, kernel="of another model")
    )
    store.append(sample(kernel=keys[0], **mine | {"decisions": {"trace": "[[],[]]"}}, seconds=9.0))
    store.append(sample(kernel=keys[0], **mine, seconds=None, valid=False))
    folder = tmp_path / "database"
    words = ["records", "export", store.path, folder, "--metaschedule", digits, "--json"]
    facts = edgec(*words).result
    assert facts["records"] == len(keys) + 1
    assert facts["skipped"] == {"for another target": 1, "failed": 1}
    return folder


def test_tvm_loads_what_was_exported(exported: Path, keys: list[str]) -> None:
    """In a process of its own: TVM's reader crashes on a database that is not whole."""
    command = [sys.executable, "-c", LOADED_BY_TVM, str(exported)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = [line.split() for line in done.stdout.splitlines()]
    expected = [(key, 1e-3 + n * 1e-6) for n, key in enumerate(keys)] + [(keys[0], 9.0)]
    assert sorted((key, float(seconds)) for key, seconds, _ in loaded) == sorted(expected)
    assert all(int(steps) > 3 for key, seconds, steps in loaded if seconds != "9.0")


def test_what_was_exported_comes_back(
    edgec: Edgec, exported: Path, keys: list[str], tmp_path: Path
) -> None:
    back = Store(tmp_path / "back")
    words = ["records", "merge", back.path, "--metaschedule", exported, "--threads", "1", "--json"]
    assert edgec(*words).result["added"] == len(keys) + 1
    assert edgec(*words).result["known"] == len(keys) + 1
    records = back.read().records
    for number, key in enumerate(keys):
        [record] = [r for r in records if r.kernel == key and r.seconds < 1]
        assert record.seconds == pytest.approx(1e-3 + number * 1e-6)
        assert record.confirmed
        assert trace.problem_of(str(record.decisions["trace"])) == ""
        assert record.key == (key, 1, features_key(host()), 1)
    [slow] = [record for record in records if record.seconds > 1]
    assert not slow.confirmed


def test_other_targets(exported: Path, keys: list[str]) -> None:
    """What a database says of its target is believed, unless the user knows better."""
    file = exported / RECORDS
    file.write_text(file.read_text().replace(f'"{host().mcpu}"', '"other"'))
    assert read_database(exported, None, 1).skipped == {"made for another target": len(keys) + 1}
    assert len(read_database(exported, host(), 1).records) == len(keys) + 1


HOSTILE_RECORDS = [
    *(
        "",
        "{",
        "[]",
        "[0]",
        "[0,[]]",
        "null",
        "[" * 10_000,
        "\x00\xff",
        '[0,[[[],[]],["x"],null,[]]]',
    ),
    *(
        "[99,[[[],[]],[1],null,null]]",
        "[-1,[[[],[]],[1],null,null]]",
        "[1e9,[[[],[]],[1],null,[]]]",
    ),
    '[0,[[[],[]],[-1],{"mcpu":"CPU","mattr":[]},[]]]',
    '[0,[[[["UnsafeSetDType",[],[],[]]],[]],[1],{"mcpu":"CPU","mattr":[]},[]]]',
    "x" * 100_000,
]


def test_hostile_databases(exported: Path, keys: list[str]) -> None:
    """Damaged workloads end a child of ours at most; damaged records are passed over."""
    workloads = (exported / WORKLOADS).read_text().splitlines()
    hostile = ["", "{", '["1","AAAA"]', '["1",5]', f'["1","{workloads[1][40:4000]}"]']
    (exported / WORKLOADS).write_text("\n".join([*workloads, *hostile]) + "\n")
    records = (exported / RECORDS).read_text().splitlines()
    own = [text.replace("CPU", host().mcpu) for text in HOSTILE_RECORDS]
    moved = [f"[{len(workloads) + n},{records[0][3:]}" for n in range(len(hostile))]
    lines = [*own, *records, *moved]
    (exported / RECORDS).write_text("\n".join(lines), encoding="latin-1")
    found = read_database(exported, host(), 1)
    assert len(found.records) == len(keys) + 1
    assert sum(found.skipped.values()) == len(lines) - len(records)
    assert all(len(reason) < 300 for reason in found.skipped)


def test_no_database(edgec: Edgec, tmp_path: Path) -> None:
    done = edgec("records", "merge", tmp_path / "store", "--metaschedule", tmp_path)
    assert done.code == 11
    assert WORKLOADS in done.err


@pytest.mark.parametrize(
    "step",
    [
        ["Annotate", ["l1", "int x;"], ["pragma_import_c"], []],
        ["Annotate", ["l1", "define"], ["pragma_import_llvm"], []],
        ["Annotate", ["l1", 1], [5], []],
        ["Annotate", ["l1", 1], [], []],
        ["Tensorize", ["b1", "anything"], [1], []],
        ["TransformLayout", ["b1"], [0, 0, "{}", None, 0], []],
        ["UnsafeHideBufferAccess", ["b1"], [], []],
        ["NoSuchStep", [], [], []],
        [["Split"], [], [], []],
        ["Split"],
        "Split",
    ],
)
def test_traces_bring_no_code(step: object) -> None:
    """Neither from a store nor from a database."""
    text = json.dumps([[step], []])
    assert trace.problem_of(text)
    facts = json.loads(encode(PLAIN)) | {"decisions": {"trace": text}}
    with pytest.raises(NotARecord):
        decode(json.dumps(facts).encode())


@pytest.mark.parametrize("value", [5, "", "{}", "null", "[[],[],[]]", "[" * 5000])
def test_what_is_no_trace(value: object) -> None:
    facts = json.loads(encode(PLAIN)) | {"decisions": {"trace": value}}
    with pytest.raises(NotARecord):
        decode(json.dumps(facts).encode())
