"""The sample models as libraries and artifacts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgec.emit.linkable import Linkable, link_library
from edgec.emit.toolchain import Toolchain

from .samples import MACHINE, Packed, pack, plain, scale, scale_golden, toolchain_for


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    return toolchain_for(f"{MACHINE}-linux-gnu.2.17")


@pytest.fixture(scope="session")
def alpha(toolchain: Toolchain) -> Linkable:
    return scale(toolchain, "alpha", 2, scale_golden(2))


@pytest.fixture(scope="session")
def libraries(toolchain: Toolchain, alpha: Linkable) -> dict[str, tuple[Linkable, bytes]]:
    """Every sample model with its shared library."""
    models = [alpha, scale(toolchain, "beta", 3)]
    models += [plain(toolchain, name) for name in ("steps", "faults", "alien", "sift")]
    return {model.name: (model, link_library(model, toolchain)) for model in models}


@pytest.fixture
def packed(libraries: dict[str, tuple[Linkable, bytes]]) -> Callable[[str], Packed]:
    """`packed(name)` is the artifact of a sample model, not yet written."""

    def make(name: str) -> Packed:
        golden = {"alpha": scale_golden(2), "beta": scale_golden(3)}.get(name, b"")
        return pack(*libraries[name], golden)

    return make


@pytest.fixture
def artifact(packed: Callable[[str], Packed], tmp_path: Path) -> Path:
    """The artifact of `alpha`."""
    return packed("alpha").write(tmp_path / "alpha.edgec")
