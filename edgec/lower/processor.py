"""Whether LLVM knows the processor that a target names: it takes an unknown one for a generic one,
and passes over unknown features."""

from __future__ import annotations

import tvm

from edgec.errors import TargetError
from edgec.lower.kernels import tvm_target
from edgec.targets import Target
from edgec.targets.tables import nearest


def check_processor(target: Target) -> None:
    """Raises TargetError for a processor or a feature that LLVM does not know."""
    llvm = tvm_target(target)
    processors = set(map(str, tvm.get_global_func("target.llvm_get_cpu_archlist")(llvm)))
    if target.mcpu not in processors:
        raise TargetError(
            f"LLVM knows no processor '{target.mcpu}' of {target.arch}",
            where=f"target '{target.name}'",
            hint=nearest(target.mcpu, processors),
        )
    features = set(map(str, tvm.get_global_func("target.llvm_get_cpu_features")(llvm).keys()))
    for feature in target.features:
        if feature[0] == "+" and feature[1:] not in features:
            raise TargetError(
                f"LLVM's '{target.mcpu}' has no feature '{feature[1:]}'",
                where=f"target '{target.name}'",
                hint="features are named as LLVM does: +dotprod, +fullfp16, +avxvnni",
            )
