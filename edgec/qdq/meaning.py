"""The model that a module compiled from a quantized one is compared with."""

from __future__ import annotations

import os
from collections.abc import Iterable

import onnx

from edgec.graph import load
from edgec.options import Options, chosen_passes
from edgec.passes import NEWER_OPSET_LEVEL, TO_INTEGERS
from edgec.program import Tensor
from edgec.qdq import has_integers
from edgec.rewrite import optimize


def meaning_of(
    source: str | os.PathLike[str], inputs: Iterable[Tensor]
) -> str | os.PathLike[str] | onnx.ModelProto:
    """The integer graph that `compile` makes of a quantized model; `source` if it makes none.

    `inputs` are the module's, whose static shapes the graph is bound to. The passes are those of
    the default level: a module compiled with others may differ from this graph by one quantum.

    Raises:
        EdgecError: as `edgec.graph.load` does.
    """
    graph = load(source, shapes={tensor.name: tensor.shape for tensor in inputs})
    options = Options()
    if options.level >= NEWER_OPSET_LEVEL:
        graph.opset_limit = graph.opset
    optimize(graph, chosen_passes(options))
    optimize(graph, TO_INTEGERS)
    return graph.to_onnx() if has_integers(graph) else source
