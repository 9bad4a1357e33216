"""The C file that describes a model to the runtime: tables of kernels, arguments and steps.

See `edgec/runtime/program.h` for what the tables mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.emit.toolchain import c_name
from edgec.plan import Plan
from edgec.program import (
    Buffer,
    Call,
    Move,
    Program,
    Repeat,
    Select,
    Step,
    Tensor,
    aligned,
)

_DTYPES = {
    "float32": "FLOAT32",
    "uint8": "UINT8",
    "int8": "INT8",
    "uint16": "UINT16",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
    "float16": "FLOAT16",
    "float64": "FLOAT64",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "bfloat16": "BFLOAT16",
    "float8_e4m3fn": "FLOAT8E4M3FN",
    "float8_e4m3fnuz": "FLOAT8E4M3FNUZ",
    "float8_e5m2": "FLOAT8E5M2",
    "float8_e5m2fnuz": "FLOAT8E5M2FNUZ",
    "float8_e8m0fnu": "FLOAT8E8M0",
    "float4_e2m1fn": "FLOAT4E2M1",
    "uint4": "UINT4",
    "int4": "INT4",
    "uint2": "UINT2",
    "int2": "INT2",
}
_PLACES = {
    "arena": "EDGEC_ARENA",
    "weight": "EDGEC_WEIGHT",
    "input": "EDGEC_INPUT",
    "output": "EDGEC_OUTPUT",
    "state": "EDGEC_STATE",
}


@dataclass(frozen=True)
class Tolerance:
    """An element of an output passes the self-test within `atol + rtol * |expected|`."""

    rtol: float
    atol: float


@dataclass(frozen=True)
class Weights:
    """The weights as one block, and the offset in bytes of each."""

    data: bytes
    offsets: tuple[int, ...]


def pack_weights(weights: Sequence[np.ndarray]) -> Weights:
    """Lay out weights one after the other, each aligned."""
    offsets: list[int] = []
    block = bytearray()
    for weight in weights:
        offsets.append(len(block))
        data = weight.tobytes()
        block += data + bytes(aligned(len(data)) - len(data))
    return Weights(bytes(block), tuple(offsets))


def symbol_of(name: str) -> str:
    """The one symbol that the library of the model `name` exports."""
    return f"edgec_model_{c_name(name)}"


def program_c(
    plan: Plan,
    symbols: Mapping[str, str],
    scratch_bytes: int,
    weights: Weights,
    weights_sha256: str,
    cpu_flags: Sequence[str],
    tolerances: Sequence[Tolerance],
    cuda_c: str = "",
    gpu_tolerances: Sequence[Tolerance] = (),
) -> str:
    """The text of program.c.

    `symbols` maps kernel names to the C functions that implement them; `scratch_bytes` is the
    scratch memory per thread; `tolerances` has one entry per output; `cuda_c` is the part for GPUs
    (`edgec.emit.cuda_glue`), and `gpu_tolerances` are theirs where they differ.
    """
    program = plan.program
    tables = _Tables(plan, weights)
    tables.add_steps(program.steps)
    model = ", ".join(
        [
            _string(program.name),
            _string(" ".join(cpu_flags)),
            _string(weights_sha256),
            str(len(weights.data)),
            str(len(program.inputs)),
            str(len(program.outputs)),
            str(len(program.states)),
        ]
    )
    used = list(dict.fromkeys(call.kernel for call in program.calls()))
    entries = {
        "inputs": ("edgec_tensor", _tensor_rows("inputs", program.inputs)),
        "outputs": ("edgec_tensor", _tensor_rows("outputs", program.outputs)),
        "tolerances": ("edgec_tolerance", _tolerance_rows(tolerances)),
        "gpu_tolerances": ("edgec_tolerance", _tolerance_rows(gpu_tolerances)),
        "states": ("edgec_state", tables.state_rows()),
        "extents": ("edgec_extent", tables.extent_rows()),
        "kernels": ("edgec_kernel", [f"s{i}, {_string(name)}" for i, name in enumerate(used)]),
        "args": ("edgec_arg", tables.args),
        "steps": ("edgec_step", tables.steps),
    }
    fields = "".join(
        f"  .{name} = {name if rows else 'NULL'},\n" for name, (_, rows) in entries.items()
    )
    sections = [
        *(["#define EDGEC_CREATE edgec_cuda_create"] if cuda_c else []),
        f'#include "{"cuda" if cuda_c else "program"}.h"\n',
        *(_shim(index, kernel, symbols[kernel], program) for index, kernel in enumerate(used)),
        *_shapes("inputs", program.inputs),
        *_shapes("outputs", program.outputs),
        *(_table(kind, name, rows) for name, (kind, rows) in entries.items() if rows),
        *([cuda_c] if cuda_c else []),
        "static const edgec_program program = {\n"
        f"  .model = EDGEC_MODEL({model}),\n"
        f"  .weights = {'EDGEC_WEIGHTS' if weights.data else 'NULL'},\n"
        f"  .arena_bytes = {plan.arena_bytes}, .scratch_bytes = {scratch_bytes},\n"
        f"{fields}"
        f"  .arg_count = {len(tables.args)}, .step_count = {len(tables.steps)},\n"
        f"  .extent_count = {len(program.extents)},\n"
        f"{'  .cuda = &cuda,' if cuda_c else ''}\n"
        "};\n"
        f"EDGEC_EXPORT_MODEL({c_name(program.name)}, program)\n",
    ]
    return "\n".join(sections)


def _tolerance_rows(tolerances: Sequence[Tolerance]) -> list[str]:
    return [f"{t.rtol!r}, {t.atol!r}" for t in tolerances]


@dataclass
class _Tables:
    """Rows of the args and steps tables."""

    plan: Plan
    weights: Weights
    args: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        calls = self.plan.program.calls()
        self.kernel_index = {
            kernel: index for index, kernel in enumerate(dict.fromkeys(c.kernel for c in calls))
        }

    def add_steps(self, steps: Sequence[Step], moves: Sequence[Move] = ()) -> None:
        for step in steps:
            match step:
                case Call():
                    buffers = (*step.inputs, *step.outputs)
                    row = f"EDGEC_CALL, {self.kernel_index[step.kernel]}, {len(self.args)}, "
                    self.steps.append(row + str(len(buffers)))
                    self.args += [self._arg(buffer, moves) for buffer in buffers]
                case Repeat():
                    self.steps.append(f"EDGEC_REPEAT, {step.times}, {_rows(step.body)}, 0")
                    self.add_steps(step.body, step.moves)
                case Select():
                    self.steps.append(
                        f"EDGEC_SELECT, {len(self.args)}, {_rows(step.then)}, "
                        f"{_rows(step.otherwise)}"
                    )
                    self.args.append(self._arg(step.condition, moves))
                    self.add_steps(step.then, moves)
                    self.add_steps(step.otherwise, moves)

    def state_rows(self) -> list[str]:
        return [
            f"{state.input.nbytes}, {{{self._arg(state.output)}}}"
            for state in self.plan.program.states
        ]

    def extent_rows(self) -> list[str]:
        program = self.plan.program
        index = {tensor.name: i for i, tensor in enumerate(program.outputs)}
        return [
            f"{index[extent.output]}, {extent.axis}, {{{self._arg(extent.count)}}}"
            for extent in program.extents
        ]

    def _arg(self, number: int, moves: Sequence[Move] = ()) -> str:
        program = self.plan.program
        whole, offset = program.whole(number)
        buffer = program.buffers[whole]
        index = buffer.index if buffer.where in ("input", "output", "state") else 0
        around = set(program.around(number))
        passed = [move for move in moves if move.buffer in around]
        offset += self._offset(whole, buffer) + sum(move.start for move in passed)
        stride = sum(move.stride for move in passed)
        return f"{_PLACES[buffer.where]}, {index}, {offset}, {stride}"

    def _offset(self, number: int, buffer: Buffer) -> int:
        if buffer.where == "arena":
            return self.plan.offsets[number]
        return self.weights.offsets[buffer.index] if buffer.where == "weight" else 0


def _rows(steps: Sequence[Step]) -> int:
    """How many rows of the step table `steps` take, nested ones included."""
    count = 0
    for step in steps:
        count += 1
        if isinstance(step, Repeat):
            count += _rows(step.body)
        elif isinstance(step, Select):
            count += _rows(step.then) + _rows(step.otherwise)
    return count


def _shim(index: int, kernel: str, symbol: str, program: Program) -> str:
    call = next(call for call in program.calls() if call.kernel == kernel)
    count = len(call.inputs) + len(call.outputs)
    parameters = ", ".join(["void *"] * count)
    arguments = ", ".join(f"a[{i}]" for i in range(count))
    return (
        f"extern int32_t {symbol}({parameters});\n"
        f"static int32_t s{index}(void *const *a) {{ return {symbol}({arguments}); }}"
    )


def _shapes(table: str, tensors: Sequence[Tensor]) -> list[str]:
    return [
        f"static const int64_t {table}_{i}[] = {{{', '.join(map(str, tensor.shape)) or '0'}}};"
        for i, tensor in enumerate(tensors)
    ]


def _tensor_rows(table: str, tensors: Sequence[Tensor]) -> list[str]:
    return [
        f"{_string(t.name)}, {table}_{i}, {len(t.shape)}, EDGEC_{_DTYPES[t.dtype]}, {t.nbytes}"
        for i, t in enumerate(tensors)
    ]


def _table(kind: str, name: str, rows: Sequence[str]) -> str:
    body = "".join(f"  {{{row}}},\n" for row in rows)
    return f"static const {kind} {name}[] = {{\n{body}}};"


def _string(text: str) -> str:
    """A C string literal; names in a model are data and may hold anything."""
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
    return f'"{escaped}"'
