"""The zoo's float models and the public ones, for Arm and every level of x86-64: each is compiled,
run (under QEMU, where it is for another machine) and verified."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from test_targets import emulator

from edgec import targets
from edgec.cache import Cache
from edgec.compiler import compile_model
from edgec.options import Options
from edgec.proof import means_of_proof

REPO = Path(__file__).parents[2]
sys.path.insert(0, str(REPO / "bench"))

from corpus import models  # noqa: E402
from target_pages import FLOAT_TARGETS, SHAPES  # noqa: E402

SMALL = {"mlperf_tiny_kws_fp32": ("armv7", "rpi5"), "ds_cnn": ("armv7", "rpi5")}
"""What every run of the tests takes of it; the first that is there."""


def prove(name: str, model: Path, wanted: tuple[str, ...], folder: Path, cache: Cache) -> None:
    options = Options(targets=wanted, shapes=SHAPES.get(name, {}))
    done = compile_model(model, folder / "x.edgec", options, cache=cache)
    proofs = {v["id"]: v["verified"] for v in done.manifest["variants"]}
    assert proofs == {
        target.name: means_of_proof(target) for target in map(targets.resolve, wanted)
    }


def test_a_keyword_spotter(tmp_path: Path, session_cache: Path) -> None:
    emulator("arm")
    emulator("aarch64")
    found = models(tuple(SMALL))
    if not found:
        pytest.skip("needs the model zoo")
    name = next(name for name in SMALL if name in found)
    prove(name, found[name], SMALL[name], tmp_path, Cache(session_cache))


@pytest.mark.nightly
@pytest.mark.parametrize("name", sorted(models()))
def test_everywhere(name: str, tmp_path: Path) -> None:
    emulator("arm")
    emulator("aarch64")
    prove(name, models()[name], FLOAT_TARGETS, tmp_path, Cache.default())
