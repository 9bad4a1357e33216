"""What the trace of a MetaSchedule candidate may do when it comes from elsewhere.

A trace is a list of a schedule's steps. Some of TVM's let it bring code of its own into a kernel
("pragma_import_c"), or break what the kernel computes; only those below are taken, all of which
move loops, and annotations that say how.
"""

from __future__ import annotations

import json

KNOB = "trace"
"""The decision whose value is a trace, as MetaSchedule's JSON: [instructions, decisions]."""

_STEPS = """
    AddUnitLoop Annotate Blockize CacheInplace CacheRead CacheWrite ComputeAt ComputeInline
    DecomposePadding DecomposeReduction EnterPostproc Fuse FuseReductionEpilogue GetChildBlocks
    GetConsumers GetLoops GetOutputBlocks GetProducers GetSBlock LoopPartition Merge PadEinsum
    Parallel RFactor ReIndex Reorder ReorderBlockIterVar ReverseComputeAt ReverseComputeInline
    RollingBuffer SampleCategorical SampleComputeLocation SamplePartitionedTile
    SamplePerfectTile SetScope Split StorageAlign Unannotate Unroll Vectorize
"""
_ALLOWED = frozenset(_STEPS.split())
_PREFIXES = ("meta_schedule.", "edgec.")
_PRAGMAS = frozenset(
    ["pragma_auto_unroll_max_step", "pragma_unroll_explicit", "pragma_loop_partition_hint"]
)


def problem_of(trace: str) -> str:
    """Why a trace is not taken; empty where it is."""
    try:
        steps, _ = json.loads(trace)
        for name, _, attributes, _ in steps:
            if name not in _ALLOWED:
                return f"a trace has the step {name!r:.40}"
            if name in ("Annotate", "Unannotate"):
                [key] = attributes
                if not (key in _PRAGMAS or key.startswith(_PREFIXES)):
                    return f"a trace has the annotation {key!r:.40}"
    except (ValueError, TypeError, AttributeError, RecursionError):
        return "no trace of MetaSchedule"
    return ""
