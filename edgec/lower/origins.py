"""Which ONNX nodes a fused kernel computes.

Fusion moves bindings into functions, shares equal functions and renames results. What survives is
what is computed from what, so each call of a fused function is matched with the bindings before
fusion that call the same kernels on the same values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from tvm import IRModule, relax
from tvm.ir import Constant

from edgec.lower.repeat import is_body

Nodes = tuple[str, ...]


def trace(before: IRModule, after: IRModule, origin: Mapping[str, str]) -> dict[str, Nodes]:
    """ONNX nodes by name of a variable of `after`'s main and of the bodies of its loops.

    `before` and `after` are the module around FuseOps; `origin` maps names of variables in `before`
    to nodes.
    """
    found: dict[str, Nodes] = {}
    for variable, function in after.functions.items():
        name = variable.name_hint
        if name != "main" and not is_body(function):
            continue
        tracer = _Tracer(before[name], origin)
        for parameter, original in zip(function.params, before[name].params, strict=True):
            tracer.same(parameter, original)
        for block in function.body.blocks:
            for binding in block.bindings:
                found[binding.var.name] = tracer.binding(after, binding.var, binding.value)
    return found


class _Tracer:
    def __init__(self, before: relax.Function, origin: Mapping[str, str]) -> None:
        self.origin = origin
        self.value: dict[relax.Var, object] = {}
        self.waiting: dict[object, list[relax.Var]] = defaultdict(list)
        for block in before.body.blocks:
            for binding in block.bindings:
                key = self._key(binding.value, {})
                self.waiting[key].append(binding.var)

    def same(self, variable: relax.Var, original: relax.Var) -> None:
        """`variable` holds what `original` held before fusion."""
        self.value[variable] = original

    def binding(self, module: IRModule, variable: relax.Var, value: relax.Expr) -> Nodes:
        """The nodes behind one binding of the fused main."""
        if not isinstance(value, relax.Call) or not isinstance(value.op, relax.GlobalVar):
            original = self._claim(value, {})
            if original is not None:
                self.value[variable] = original
            return self._nodes([original])
        function = module[value.op]
        inner = {
            parameter: self._term(argument, {})
            for parameter, argument in zip(function.params, value.args, strict=True)
        }
        claimed: list[relax.Var | None] = []
        for block in function.body.blocks:
            for binding in block.bindings:
                original = self._claim(binding.value, inner)
                claimed.append(original)
                if original is not None:
                    inner[binding.var] = original
        self.value[variable] = inner.get(function.body.body, variable)
        return self._nodes(claimed)

    def _claim(self, value: relax.Expr, inner: Mapping[relax.Var, object]) -> relax.Var | None:
        candidates = self.waiting.get(self._key(value, inner))
        return candidates.pop(0) if candidates else None

    def _key(self, value: relax.Expr, inner: Mapping[relax.Var, object]) -> object:
        """What is computed: the kernel and its arguments, in terms of values before fusion."""
        if not isinstance(value, relax.Call):
            return self._term(value, inner)
        return value.op.name, tuple(self._term(argument, inner) for argument in value.args)

    def _term(self, value: relax.Expr, inner: Mapping[relax.Var, object]) -> object:
        if isinstance(value, relax.Tuple):
            return tuple(self._term(field, inner) for field in value.fields)
        if isinstance(value, relax.TupleGetItem):
            return self._term(value.tuple_value, inner), int(value.index)
        if isinstance(value, Constant):
            return "constant", value.value
        if isinstance(value, relax.GlobalVar):
            return value.name_hint
        if isinstance(value, relax.Var):
            return inner.get(value, self.value.get(value, value))
        return str(value)

    def _nodes(self, claimed: list[relax.Var | None]) -> Nodes:
        names = (self.origin.get(variable.name) for variable in claimed if variable is not None)
        return tuple(dict.fromkeys(name for name in names if name))
