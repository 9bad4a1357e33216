"""Kernels of a fused module joined to larger ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import tvm_ffi
from tvm import IRModule, relax, s_tir, tirx

from edgec.lower.origins import Nodes

Fits = Callable[[tirx.PrimFunc, tirx.PrimFunc, int], bool]
"""Whether what the first kernel writes, parameter `int` of the second, can stay inside of both."""


def join(module: IRModule, nodes: dict[str, Nodes], fits: Fits) -> IRModule:
    """A fused module with such pairs of kernels as one in its main: those that `fits` takes, where
    nothing else reads what the first one writes.

    `nodes` has the ONNX nodes of each binding by the name of its variable; those of a first kernel
    are added to the second's.
    """
    main = module["main"]
    bindings = [binding for block in main.body.blocks for binding in block.bindings]
    uses = _uses(main)
    made = {binding.var: binding.value for binding in bindings if _is_kernel(binding.value)}
    joined: dict[relax.Var, relax.Expr] = {}
    gone: set[relax.Var] = set()
    builder = relax.BlockBuilder(module)
    for binding in bindings:
        for place, argument in enumerate(_arguments(made.get(binding.var))):
            first = made.get(argument)
            if first is None or uses[argument] != 1 or argument in joined or argument in gone:
                continue
            kernels = (module[first.args[0]], module[binding.value.args[0]])
            if not fits(*kernels, place):
                continue
            names = [call.args[0].name_hint for call in (first, binding.value)]
            name = "_".join([names[0], names[1].removeprefix("fused_")])
            kernel = builder.add_func(_joined(*kernels, place), name)
            others = [*_arguments(first), *_without(_arguments(binding.value), place)]
            joined[binding.var] = relax.call_tir(kernel, relax.Tuple(others), binding.value.ty)
            nodes[binding.var.name] = nodes[argument.name] + nodes[binding.var.name]
            gone.add(argument)
            break
    if not joined:
        return module
    result = builder.get()
    result["main"] = _with_bindings(main, joined, gone)
    return relax.transform.Normalize()(result)


def blocks_of(function: tirx.PrimFunc) -> list[s_tir.SBlock]:
    """The blocks of a kernel, in order."""
    schedule = s_tir.Schedule(function)
    root = schedule.get_sblock("root")
    return [schedule.get(block) for block in schedule.get_child_blocks(root)]


def _uses(function: relax.Function) -> Counter[relax.Var]:
    """How often each variable is read."""
    counts: Counter[relax.Var] = Counter()

    def count(expr: Any) -> None:
        for item in [*expr.fields] if isinstance(expr, relax.Tuple) else [expr]:
            if isinstance(item, relax.Tuple):
                count(item)
            elif isinstance(item, relax.Var):
                counts[item] += 1

    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            for argument in value.args if isinstance(value, relax.Call) else [value]:
                count(argument)
            if isinstance(value, relax.TupleGetItem):
                count(value.tuple_value)
    count(function.body.body)
    return counts


def _is_kernel(value: relax.Expr) -> bool:
    return isinstance(value, relax.Call) and value.op.name == "relax.call_tir"


def _arguments(call: relax.Call | None) -> list[relax.Expr]:
    if call is None:
        return []
    given = call.args[1]
    return list(given.fields) if isinstance(given, relax.Tuple) else [given]


def _without(items: list[Any], place: int) -> list[Any]:
    return [*items[:place], *items[place + 1 :]]


def _joined(first: tirx.PrimFunc, second: tirx.PrimFunc, place: int) -> tirx.PrimFunc:
    """One function whose blocks are those of both; what `first` writes is a buffer of its own."""
    *inputs, written = first.params
    read = second.params[place]
    between = tirx.decl_buffer(written.shape, written.dtype, name="between")

    def renamed(function: tirx.PrimFunc, old: tirx.Buffer) -> Any:
        substitute = (tirx.Buffer, lambda buffer: between if buffer.same_as(old) else buffer)
        return tvm_ffi.structural_map(function.body, substitute).block

    roots = [renamed(first, written), renamed(second, read)]
    root = s_tir.SBlock(
        iter_vars=[],
        reads=[],
        writes=[],
        name_hint="root",
        body=tirx.SeqStmt([block.body for block in roots]),
        alloc_buffers=[*roots[0].alloc_buffers, between, *roots[1].alloc_buffers],
    )
    params = [*inputs, *_without(list(second.params), place)]
    return tirx.PrimFunc(params, s_tir.SBlockRealize([], True, root), attrs=second.attrs)


def _with_bindings(
    function: relax.Function, joined: dict[relax.Var, relax.Expr], gone: set[relax.Var]
) -> relax.Function:
    """`function` with the values of `joined`, without the bindings of `gone`."""

    def kept(block: relax.BindingBlock) -> Iterator[relax.Binding]:
        for binding in block.bindings:
            if binding.var not in gone:
                value = joined.get(binding.var, binding.value)
                yield relax.VarBinding(binding.var, value)

    blocks = [type(block)(list(kept(block))) for block in function.body.blocks]
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(
        function.params, body, function.ret_ty, function.is_pure, attrs=function.attrs
    )
