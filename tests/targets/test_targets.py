"""Other machines than this one: their artifacts, run by QEMU where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Edgec

from edgec import targets
from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.errors import TargetError
from edgec.options import Options
from edgec.proof import means_of_proof
from edgec.runtime.load import load, read_manifest

REPO = Path(__file__).parents[2]
HERE = {"x86_64": "x86-64-v3", "aarch64": "aarch64"}[os.uname().machine]
x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an x86-64")


def emulator(arch: str) -> str:
    path = shutil.which(f"qemu-{arch}")
    if path is None:
        pytest.skip(f"needs qemu-{arch} (apt-get install qemu-user)")
    return path


@pytest.fixture
def aarch64(edgec: Edgec, digits: Path, tmp_path: Path) -> Path:
    """The digits model and a static edgec-run beside it, for aarch64."""
    path = tmp_path / "x.edgec"
    done = edgec("compile", digits, "--target", "aarch64", "-o", path, "--runner")
    assert done.code == 0, done.err
    return path


def test_emulated(aarch64: Path, tmp_path: Path) -> None:
    """The program that a board runs classifies digits."""
    qemu = emulator("aarch64")
    [variant] = read_manifest(aarch64)["variants"]
    assert variant["verified"] == "emulated"
    assert variant["requires"]["arch"] == "aarch64"
    images = np.load(REPO / "models" / "digits_test.npz")["image"]
    labels = np.load(REPO / "models" / "digits_labels.npy")
    for index in range(5):
        np.save(tmp_path / "image.npy", images[index].reshape(1, 1, 8, 8))
        words = ["--input", f"image={tmp_path / 'image.npy'}", "--output", str(tmp_path)]
        command = [qemu, str(aarch64.with_suffix(".run")), str(aarch64), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert np.load(tmp_path / "0-logits.npy").argmax() == labels[index]


def test_one_artifact_for_two_machines(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    """This machine picks its own variant."""
    other = "aarch64" if HERE != "aarch64" else "x86-64-v3"
    path = tmp_path / "x.edgec"
    done = edgec("compile", digits, "--target", other, "--target", HERE, "-o", path, "--json")
    assert {variant["id"] for variant in done.result["variants"]} == {other, HERE}
    import edgec as library

    assert library.load(path).variant == HERE
    with pytest.raises(library.EdgecError, match=other):
        library.load(path, variant=other)


def test_libraries_of_another_machine(edgec: Edgec, aarch64: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert edgec("export", aarch64, out).code == 0
    machine = (out / "lib" / "libdigits_cnn.so").read_bytes()[18:20]
    assert int.from_bytes(machine, "little") == 183, "EM_AARCH64"


X86_64 = (
    "x86-64-v2",
    "elkhart-lake",
    "x86-64-v3",
    "n100",
    "x86-64-v3+avxvnni",
    "x86-64-v4",
    "x86-64-v4+avx512vnni",
)
"""Those that ask less of the processor first."""


@pytest.fixture(scope="module")
def levels(
    digits: Path, session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The digits model for every level and board of x86-64 in one artifact, and its manifest."""
    path = tmp_path_factory.mktemp("levels") / "digits_cnn.edgec"
    done = compile_model(digits, path, Options(targets=X86_64), cache=Cache(session_cache))
    return path, done.manifest


@x86_64
def test_variants_share_one_packing_of_the_weights(levels: tuple[Path, dict[str, Any]]) -> None:
    _, manifest = levels
    [stored] = [name for name in manifest["files"] if name.startswith("weights/")]
    assert {variant["weights"] for variant in manifest["variants"]} == {stored}
    assert manifest["files"][stored]["size"] > 0


@x86_64
def test_the_best_variant_comes_first_and_is_picked(levels: tuple[Path, dict[str, Any]]) -> None:
    path, manifest = levels
    asked = [len(variant["requires"]["features"]) for variant in manifest["variants"]]
    assert asked == sorted(asked, reverse=True)
    assert len(set(asked)) > 4
    here = [v["id"] for v in manifest["variants"] if targets.runs_here(targets.resolve(v["id"]))]
    with load(path) as module:
        assert module.variant == here[0]
    for variant in manifest["variants"]:
        assert variant["verified"] == ("device" if variant["id"] in here else "host-twin")


@x86_64
@pytest.mark.parametrize(
    ("name", "cpu"),
    [("x86-64-v2", "Nehalem"), ("elkhart-lake", "Snowridge"), ("x86-64-v3", "Haswell")],
)
def test_older_processors_can_run_it(
    edgec: Edgec, levels: tuple[Path, dict[str, Any]], tmp_path: Path, name: str, cpu: str
) -> None:
    qemu, path = emulator("x86_64"), levels[0]
    assert edgec("export", path, tmp_path, "--variant", name, "--runner").code == 0
    [runner] = tmp_path.glob("**/*run")

    def code(processor: str) -> int:
        words = [qemu, "-cpu", processor, str(runner), str(path), "--selftest"]
        return subprocess.run(words, capture_output=True).returncode

    assert code(cpu) == 0
    if name == "x86-64-v3" and targets.runs_here(targets.resolve(name)):
        assert code("Nehalem") != 0, "the emulator lets everything pass"


@pytest.mark.parametrize("name", [n for n in targets.names() if n not in ("host", "jetson")])
def test_llvm_knows_the_processor(name: str) -> None:
    """It takes unknown names for a generic processor; known ones have what the facts say."""
    import tvm

    from edgec.lower.kernels import tvm_target

    target = targets.resolve(name)
    llvm = tvm_target(target)
    assert target.mcpu in tvm.get_global_func("target.llvm_get_cpu_archlist")(llvm)
    features = set(tvm.get_global_func("target.llvm_get_cpu_features")(llvm).keys())
    widths = {"avx512f": 512, "avx": 256, "sse2": 128, "neon": 128}
    assert max(bits for name, bits in widths.items() if name in features) == target.vector_bits
    assert ("avxvnni" in features) == ("avx_vnni" in target.cpu_flags)
    assert ("avx512vnni" in features) == ("avx512_vnni" in target.cpu_flags)
    assert ("dotprod" in features) == ("asimddp" in target.cpu_flags)
    assert ("fullfp16" in features) == ("asimdhp" in target.cpu_flags)
    assert ("sve" in features) == ("sve" in target.cpu_flags)
    assert "gfni" not in features


def test_boards_stand_beside_the_levels(edgec: Edgec) -> None:
    listed = edgec("targets", "--json").result["targets"]
    levels = {item["name"]: item["level"] for item in listed}
    assert levels["elkhart-lake"] == "x86-64-v2"
    assert levels["n100"] == "x86-64-v3+avxvnni"
    assert levels["rpi4"] == "aarch64"
    assert [item["name"] for item in listed][:3] == ["host", "aarch64", "armv7"]
    [jetson] = [item for item in listed if item["name"] == "jetson"]
    assert (jetson["target"], jetson["gpu_arch"], jetson["cuda"]) == (
        "jetson-orin-nano",
        "sm_87",
        "12.6",
    )
    facts = edgec("targets", "n100", "--json").result
    assert (facts["mcpu"], facts["l1_bytes"], facts["l2_bytes"]) == ("gracemont", 32768, 524288)


def test_features_are_added_in_one_order() -> None:
    assert targets.resolve("x86-64-v3+avxvnni").cpu_flags[-1] == "avx_vnni"
    for name in ("x86-64-v3+avx512vnni", "n100+avxvnni", "n101", "host+avxvnni"):
        with pytest.raises(TargetError):
            targets.resolve(name)


def test_a_processor_that_qemu_has_not_is_proved_by_a_twin() -> None:
    """An emulator of this architecture tells programs of this processor, whatever it emulates."""
    here = targets.resolve(HERE)
    future = replace(here, cpu_flags=(*here.cpu_flags, "fpu_of_tomorrow"))
    assert means_of_proof(here) == "device"
    assert means_of_proof(future) == "host-twin"


def test_host_is_named_by_what_it_is() -> None:
    """An artifact never says "host": the manifest names a target that means the same elsewhere."""
    host = targets.resolve("host")
    assert host.name != "host"
    assert not host.level, "a board is not taken for another with the same features"
    flags = targets.host_cpu_flags()
    assert not [name for name, flag in host.optional if flag in flags]
    assert flags.issuperset(host.cpu_flags)
    assert targets.resolve(host.name) == host
