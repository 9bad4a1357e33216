"""A kernel as tuning sees it: what is called, and with what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgec.plan import Plan
from edgec.program import Call

if TYPE_CHECKING:
    from tvm import tirx

    from edgec.lower.extract import Lowered

Role = Literal["input", "weight", "output"]

_MOST_GIVEN = 1 << 20


@dataclass(frozen=True)
class Buffer:
    """A parameter of a kernel.

    `dtype` is TVM's name of its elements' type, `data` its contents where random values would not
    do, as for indices.
    """

    dtype: str
    nbytes: int
    role: Role
    data: bytes | None = None


@dataclass(frozen=True)
class Kernel:
    """An unscheduled kernel with its parameters.

    `overwrites` are an input and an output parameter that are one and the same memory.
    """

    name: str
    function: tirx.PrimFunc
    buffers: tuple[Buffer, ...]
    overwrites: tuple[int, int] | None = None

    @staticmethod
    def of(call: Call, lowered: Lowered, plan: Plan) -> Kernel:
        """The kernel of a call of `plan.program`, which was made of `lowered`."""
        in_place = plan.in_place.get(call.kernel)
        function = function_of(call, lowered, plan)
        numbers = (*call.inputs, *call.outputs)
        program = plan.program
        buffers = []
        for position, (number, param) in enumerate(zip(numbers, function.params, strict=True)):
            buffer = program.buffers[number]
            role: Role = "output" if position >= len(call.inputs) else "input"
            data = None
            if role == "input" and buffer.where == "weight":
                role = "weight"
                weight = program.weights[buffer.index]
                if weight.dtype.kind in "iu" and weight.nbytes <= _MOST_GIVEN:
                    data = weight.tobytes()
            buffers.append(Buffer(str(param.dtype), buffer.nbytes, role, data))
        overwrites = (in_place.source, in_place.target) if in_place else None
        return Kernel(call.kernel, function, tuple(buffers), overwrites)


def function_of(call: Call, lowered: Lowered, plan: Plan) -> tirx.PrimFunc:
    """The unscheduled code of the kernel of a call of `plan.program`, which was made of
    `lowered`."""
    in_place = plan.in_place.get(call.kernel)
    return lowered.kernels[in_place.kernel if in_place else call.kernel]
