"""TIR expressions as CUDA C, for kernels that are not TVM's: indices, conditions, and what comes
after a sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.expr import TensorLoad

from edgec.emit.cuda_prelude import C_TYPES


class NotPrintable(Exception):
    """An expression has a part that no C is known for."""


_BINARY = {
    tirx.Add: "+",
    tirx.Sub: "-",
    tirx.Mul: "*",
    tirx.Div: "/",
    tirx.LT: "<",
    tirx.LE: "<=",
    tirx.GT: ">",
    tirx.GE: ">=",
    tirx.EQ: "==",
    tirx.NE: "!=",
    tirx.And: "&&",
    tirx.Or: "||",
}
_FUNCTIONS = {
    "exp": "expf",
    "exp2": "exp2f",
    "log": "logf",
    "tanh": "tanhf",
    "erf": "erff",
    "sqrt": "sqrtf",
    "rsqrt": "rsqrtf",
    "fabs": "fabsf",
    "floor": "floorf",
    "ceil": "ceilf",
    "nearbyint": "nearbyintf",
    "round": "roundf",
    "isnan": "isnan",
}
"""Functions of float32."""

Load = Callable[[TensorLoad, list[str]], str]
"""Makes C of a load whose indices are C already."""


class Printer:
    """Prints expressions over variables that have names in C."""

    def __init__(self, names: Mapping[Any, str], load: Load) -> None:
        self._names = names
        self._load = load

    def __call__(self, expr: Any) -> str:
        """`expr` as C, in parentheses where it needs them.

        Raises:
            NotPrintable: it has a part that no C is known for.
        """
        for kind, sign in _BINARY.items():
            if isinstance(expr, kind):
                return f"({self(expr.a)} {sign} {self(expr.b)})"
        match expr:
            case tirx.IntImm():
                return self._integer(expr)
            case tirx.FloatImm():
                return self._float(expr)
            case tvm.ir.Var():
                return self._variable(expr)
            case TensorLoad():
                return self._load(expr, [self(index) for index in expr.indices])
            case tirx.FloorDiv():
                return f"edgec_floor_divide({self(expr.a)}, {self(expr.b)})"
            case tirx.FloorMod():
                return f"edgec_floor_remainder({self(expr.a)}, {self(expr.b)})"
            case tirx.Max() | tirx.Min():
                name = "max" if isinstance(expr, tirx.Max) else "min"
                return f"{name}({self(expr.a)}, {self(expr.b)})"
            case tirx.Not():
                return f"(!{self(expr.a)})"
            case tirx.Select():
                chosen = self(expr.true_value), self(expr.false_value)
                return f"({self(expr.condition)} ? {chosen[0]} : {chosen[1]})"
            case tirx.Cast():
                return f"(({c_type(str(expr.ty))}){self(expr.value)})"
            case tvm.ir.Call():
                return self._call(expr)
        raise NotPrintable(type(expr).__name__)

    def _variable(self, variable: Any) -> str:
        for known, name in self._names.items():
            if known.same_as(variable):
                return name
        raise NotPrintable(f"variable {variable}")

    def _integer(self, expr: Any) -> str:
        value = int(expr.value)
        if str(expr.ty) == "bool":
            return "true" if value else "false"
        if abs(value) >= 1 << 31:
            raise NotPrintable(f"integer {value}")
        return str(value)

    def _float(self, expr: Any) -> str:
        value, dtype = float(expr.value), str(expr.ty)
        if value != value or value in (float("inf"), float("-inf")):
            raise NotPrintable("a constant that is not finite")
        text = value.hex()
        if dtype == "float32":
            return f"{text}f"
        if dtype == "float16":
            return f"half({text}f)"
        raise NotPrintable(f"constant of {dtype}")

    def _call(self, call: Any) -> str:
        name = call.op.name.split(".")[-1] if isinstance(call.op, tvm.ir.Op) else ""
        arguments = [self(argument) for argument in call.args]
        if name == "if_then_else":
            return f"({arguments[0]} ? {arguments[1]} : {arguments[2]})"
        if name in ("likely", "rounded"):
            return arguments[0]
        if name == "to_nearest":
            return f"__float2int_rn({arguments[0]})"
        if name not in _FUNCTIONS or str(call.args[0].ty) not in ("float32", "float16"):
            raise NotPrintable(f"function {name}")
        wide = f"{_FUNCTIONS[name]}((float)({arguments[0]}))"
        return f"half({wide})" if str(call.ty) == "float16" else wide


def c_type(dtype: str) -> str:
    """The C type of an element; NotPrintable where there is none."""
    if dtype not in C_TYPES:
        raise NotPrintable(f"type {dtype}")
    return C_TYPES[dtype]
