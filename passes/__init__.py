"""The table of passes: by name, and by optimisation level in the order they run."""

from __future__ import annotations

from edgec.passes.convert_einsum import ConvertEinsum
from edgec.passes.convert_functions_to_tables import ConvertFunctionsToTables
from edgec.passes.convert_qdq_to_integer import ConvertQdqToInteger
from edgec.passes.convert_qoperator_to_qdq import ConvertQoperatorToQdq
from edgec.passes.convert_to_bfloat16 import ConvertToBfloat16
from edgec.passes.convert_to_float16 import ConvertToFloat16
from edgec.passes.decompose_recurrent import DecomposeRecurrent
from edgec.passes.eliminate_common_subexpressions import EliminateCommonSubexpressions
from edgec.passes.eliminate_constant_conditions import EliminateConstantConditions
from edgec.passes.eliminate_dead import EliminateDead
from edgec.passes.eliminate_duplicate_constants import EliminateDuplicateConstants
from edgec.passes.eliminate_identity import EliminateIdentity
from edgec.passes.eliminate_inverse_pairs import EliminateInversePairs
from edgec.passes.equalize_layers import EqualizeLayers
from edgec.passes.fold_constants import FoldConstants
from edgec.passes.fold_pad import FoldPad
from edgec.passes.fold_quantized_constants import FoldQuantizedConstants
from edgec.passes.fold_reshape_shape import FoldReshapeShape
from edgec.passes.fold_scale_before_conv import FoldScaleBeforeConv
from edgec.passes.fold_scale_into_conv import FoldScaleIntoConv
from edgec.passes.fuse_attention import FuseAttention
from edgec.passes.fuse_conv_bn import FuseConvBn
from edgec.passes.fuse_gelu import FuseGelu
from edgec.passes.fuse_hard_swish import FuseHardSwish
from edgec.passes.fuse_l2_norm import FuseL2Norm
from edgec.passes.fuse_layer_norm import FuseLayerNorm
from edgec.passes.fuse_log_softmax import FuseLogSoftmax
from edgec.passes.fuse_matmul_add import FuseMatmulAdd
from edgec.passes.fuse_mish import FuseMish
from edgec.passes.fuse_pool_flatten import FusePoolFlatten
from edgec.passes.fuse_relu_clip import FuseReluClip
from edgec.passes.fuse_rms_norm import FuseRmsNorm
from edgec.passes.fuse_silu import FuseSilu
from edgec.passes.fuse_softmax import FuseSoftmax
from edgec.passes.insert_qdq import InsertQdq
from edgec.passes.merge_parallel_matmuls import MergeParallelMatmuls
from edgec.passes.merge_reshapes import MergeReshapes
from edgec.passes.merge_scales import MergeScales
from edgec.passes.merge_slices import MergeSlices
from edgec.passes.merge_transposes import MergeTransposes
from edgec.passes.sink_dequantize import SinkDequantize
from edgec.passes.sink_transposes import SinkTransposes
from edgec.passes.unroll_loops import UnrollLoops
from edgec.passes.unsign_activations import UnsignActivations
from edgec.rewrite import AnyPass

PASSES: dict[str, type[AnyPass]] = {
    kind.name: kind
    for kind in (
        ConvertEinsum,
        ConvertFunctionsToTables,
        ConvertQdqToInteger,
        ConvertQoperatorToQdq,
        ConvertToBfloat16,
        ConvertToFloat16,
        DecomposeRecurrent,
        EliminateCommonSubexpressions,
        EliminateConstantConditions,
        EliminateDead,
        EliminateDuplicateConstants,
        EliminateIdentity,
        EliminateInversePairs,
        EqualizeLayers,
        FoldConstants,
        FoldPad,
        FoldQuantizedConstants,
        FoldReshapeShape,
        FoldScaleBeforeConv,
        FoldScaleIntoConv,
        FuseAttention,
        FuseConvBn,
        FuseGelu,
        FuseHardSwish,
        FuseL2Norm,
        FuseLayerNorm,
        FuseLogSoftmax,
        FuseMatmulAdd,
        FuseMish,
        FusePoolFlatten,
        FuseReluClip,
        FuseRmsNorm,
        FuseSilu,
        FuseSoftmax,
        InsertQdq,
        MergeParallelMatmuls,
        MergeReshapes,
        MergeScales,
        MergeSlices,
        MergeTransposes,
        SinkDequantize,
        SinkTransposes,
        UnrollLoops,
        UnsignActivations,
    )
}

_O1: tuple[AnyPass, ...] = (
    EliminateDead(),
    FoldConstants(),
    FoldReshapeShape(),
    EliminateConstantConditions(),
    EliminateIdentity(),
    EliminateInversePairs(),
    MergeReshapes(),
    MergeTransposes(),
    MergeSlices(),
    EliminateDuplicateConstants(),
    EliminateCommonSubexpressions(),
)

_O2: tuple[AnyPass, ...] = (
    *_O1,
    UnrollLoops(),
    ConvertEinsum(simple=True),
    FuseGelu(),
    FuseLayerNorm(),
    FuseRmsNorm(),
    FuseHardSwish(),
    FuseMish(),
    FuseSilu(),
    FuseSoftmax(),
    FuseLogSoftmax(),
    FuseAttention(),
    FuseReluClip(),
    FoldQuantizedConstants(),
    SinkTransposes(),
    MergeScales(),
    FuseConvBn(),
    FoldPad(),
    FusePoolFlatten(),
    FuseMatmulAdd(),
    FoldScaleIntoConv(),
    FoldScaleBeforeConv(),
)

_O3: tuple[AnyPass, ...] = (*_O2, FuseL2Norm(), MergeParallelMatmuls())

LEVELS: dict[int, tuple[AnyPass, ...]] = {0: (), 1: _O1, 2: _O2, 3: _O3}

NEWER_OPSET_LEVEL = 3
"""From this level on a pass may make an operator that is newer than the model's opset."""

TO_INTEGERS: tuple[AnyPass, ...] = (
    ConvertQoperatorToQdq(),
    UnsignActivations(),
    SinkDequantize(),
    ConvertFunctionsToTables(),
    ConvertQdqToInteger(),
    FoldPad(),
    FoldConstants(),
    EliminateDead(),
)
"""What makes integer operators of quantized patterns, after the passes of a level."""
