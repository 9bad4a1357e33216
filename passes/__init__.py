"""The table of passes: by name, and by optimisation level in the order they run."""

from __future__ import annotations

from edgec.passes.eliminate_dead import EliminateDead
from edgec.passes.eliminate_identity import EliminateIdentity
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.fuse_conv_bn import FuseConvBn
from edgec.rewrite import AnyPass

PASSES: dict[str, type[AnyPass]] = {
    kind.name: kind for kind in (EliminateDead, EliminateIdentity, FoldConstants, FuseConvBn)
}

LEVELS: dict[int, tuple[AnyPass, ...]] = {
    0: (),
    1: (EliminateDead(), FoldConstants(), EliminateIdentity()),
    2: (EliminateDead(), FoldConstants(), EliminateIdentity(), FuseConvBn()),
    3: (EliminateDead(), FoldConstants(), EliminateIdentity(), FuseConvBn()),
}
