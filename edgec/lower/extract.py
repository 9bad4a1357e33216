"""From a fused Relax module to a `Program`: buffers, aliases and kernel calls.

After fusion Relax's `main` is a straight line of `call_tir` bindings. A reshape between them is no
work: its result is the same buffer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tvm import IRModule, relax, te, tirx
from tvm.ir import Constant

from edgec.errors import LoweringError
from edgec.lower.extract_loop import extract_loop
from edgec.lower.extract_parts import join
from edgec.lower.in_place import in_place_pairs
from edgec.lower.origins import Nodes
from edgec.lower.repeat import Loop, body_of, is_repeat
from edgec.lower.work import work
from edgec.program import Buffer, Call, Extent, Program, State, Step, Tensor, dtype_of


@dataclass(frozen=True)
class Lowered:
    """A program and the TIR function of each of its kernels, by kernel name."""

    program: Program
    kernels: dict[str, tirx.PrimFunc]


def extract(
    module: IRModule,
    name: str,
    inputs: list[Tensor],
    outputs: list[Tensor],
    states: list[tuple[str, str]],
    extents: list[tuple[int, int]],
    nodes: Mapping[str, Nodes],
) -> Lowered:
    """Read `main` of a fused module, whose parameters and results are `inputs` and `outputs`.

    `states` are (output, input) names: both leave the signature and stay in the instance. `extents`
    are (output, axis) of those that a run decides; main returns their counts after the outputs.
    `nodes` has the ONNX nodes of each binding, by the name of its variable.
    """
    extraction = _Extraction(module, name, inputs, outputs, nodes)
    extraction.run(extents)
    extraction.bind_states(states)
    return Lowered(extraction.program, extraction.kernels)


class _Extraction:
    """`movable` are the buffers that only steps of the function at hand write, each of which could
    as well write them elsewhere."""

    def __init__(
        self,
        module: IRModule,
        name: str,
        inputs: list[Tensor],
        outputs: list[Tensor],
        nodes: Mapping[str, Nodes],
    ) -> None:
        self.module = module
        self.program = Program(name, inputs, outputs)
        self.kernels: dict[str, tirx.PrimFunc] = {}
        self.nodes = nodes
        self.buffer_of: dict[relax.Var, int | tuple[int, ...]] = {}
        self.weight_of: dict[tuple[str, bytes], int] = {}
        self.movable: set[int] = set()

    def run(self, extents: list[tuple[int, int]]) -> None:
        main = self.module["main"]
        for index, (param, tensor) in enumerate(zip(main.params, self.program.inputs, strict=True)):
            self.buffer_of[param] = self._add(Buffer(tensor.name, tensor.nbytes, "input", index))
        results = self._results(main)
        outputs = self.program.outputs
        self._bind_outputs(results[: len(outputs)])
        self.program.extents = [
            Extent(outputs[index].name, axis, count)
            for (index, axis), count in zip(extents, results[len(outputs) :], strict=True)
        ]

    def _results(self, function: relax.Function) -> tuple[int, ...]:
        """Append the steps of a function whose parameters have buffers; those of its results."""
        outside, self.movable = self.movable, set()
        for binding in _bindings(function):
            self.buffer_of[binding.var] = self._value(binding.var.name, binding.value)
        self.movable = outside
        return self._buffers(function.body.body)

    def _add(self, buffer: Buffer) -> int:
        self.program.buffers.append(buffer)
        return len(self.program.buffers) - 1

    def _value(self, name: str, value: relax.Expr) -> int | tuple[int, ...]:
        if isinstance(value, relax.Call) and value.op.name == "relax.call_tir":
            return self._call(name, value)
        if is_repeat(value):
            return self._loop(name, value)
        if isinstance(value, relax.Call) and value.op.name == "relax.concat":
            return self._joined(name, value)
        if isinstance(value, relax.Call) and value.op.name == "relax.strided_slice":
            return self._cut_out(name, value)
        if isinstance(value, relax.Call) and value.op.name == "relax.reshape":
            return self._buffers(value.args[0])[0]
        if isinstance(value, relax.TupleGetItem):
            return self._buffers(value.tuple_value)[int(value.index)]
        found = self._buffers(value)
        return found[0] if len(found) == 1 else found

    def _buffers(self, value: relax.Expr) -> tuple[int, ...]:
        """The buffers that hold an argument: several for a tuple."""
        if isinstance(value, relax.Tuple):
            return tuple(buffer for item in value.fields for buffer in self._buffers(item))
        if isinstance(value, Constant):
            return (self._weight(value.value.numpy(), str(value.ty.dtype)),)
        if isinstance(value, relax.Var) and value in self.buffer_of:
            found = self.buffer_of[value]
            return found if isinstance(found, tuple) else (found,)
        raise LoweringError(f"no kernel computes {type(value).__name__} {value}")

    def _weight(self, array: np.ndarray, dtype: str) -> int:
        key = (dtype, array.tobytes())
        if key not in self.weight_of:
            self.program.weights.append(np.ascontiguousarray(array))
            index = len(self.program.weights) - 1
            self.weight_of[key] = self._add(Buffer(f"w{index}", array.nbytes, "weight", index))
        return self.weight_of[key]

    def _call(self, name: str, call: relax.Call) -> int | tuple[int, ...]:
        function, arguments = call.args[0], call.args[1]
        kernel = function.name_hint
        self.kernels[kernel] = self.module[function]
        inputs = self._buffers(arguments)
        types = [call.ty] if isinstance(call.ty, relax.TensorType) else list(call.ty.fields)
        outputs = tuple(
            self._add(Buffer(name if i == 0 else f"{name}.{i}", _nbytes(type_), "arena"))
            for i, type_ in enumerate(types)
        )
        self.movable.update(outputs)
        if any(self.program.buffers[buffer].nbytes for buffer in outputs):
            done = work(self.kernels[kernel], len(inputs))
            self.program.steps.append(
                Call(
                    kernel,
                    inputs,
                    outputs,
                    nodes=self.nodes.get(name, ()),
                    in_place=in_place_pairs(self.kernels[kernel], len(inputs)),
                    macs=done.macs,
                    traffic=done.traffic,
                )
            )
        return outputs[0] if len(outputs) == 1 else outputs

    def _joined(self, name: str, call: relax.Call) -> int:
        """A buffer of parts: what computes an operand writes its part at once, or it is copied."""
        fields = call.args[0].fields
        operands = [(self._buffers(field)[0], _nbytes(field.ty)) for field in fields]
        whole, copies = join(self.program, self.movable, name, operands, self._copy_step)
        self.program.steps += [replace(copy, nodes=self.nodes.get(name, ())) for copy in copies]
        return whole

    def _cut_out(self, name: str, call: relax.Call) -> int:
        """The part of a buffer that a slice along its outermost axis is."""
        source, axes, first, _ = call.args
        (whole,) = self._buffers(source)
        row = _nbytes(source.ty) // int(source.ty.shape.values[int(axes.fields[0])])
        offset = int(first.fields[0]) * row
        return self._add(Buffer(name, _nbytes(call.ty), "arena", within=whole, offset=offset))

    def _loop(self, name: str, call: relax.Call) -> int | tuple[int, ...]:
        function = self.module[body_of(call)]

        def body(parameters: Sequence[int]) -> tuple[list[Step], tuple[int, ...]]:
            outside, self.program.steps = self.program.steps, []
            self.buffer_of.update(zip(function.params, parameters, strict=True))
            results = self._results(function)
            inside, self.program.steps = self.program.steps, outside
            return inside, results

        arguments = self._buffers(call.args[1])
        steps, results = extract_loop(
            self.program,
            Loop.of(function),
            name,
            arguments,
            self._copy_step,
            body,
            any(is_repeat(binding.value) for binding in _bindings(function)),
        )
        self.program.steps += steps
        return results[0] if len(results) == 1 else results

    def _bind_outputs(self, results: tuple[int, ...]) -> None:
        """Let kernels write the caller's output directly; copy where they cannot."""
        buffers = self.program.buffers
        for index, (buffer, tensor) in enumerate(zip(results, self.program.outputs, strict=True)):
            output = Buffer(tensor.name, tensor.nbytes, "output", index)
            if buffers[buffer].where == "arena" and buffers[buffer].within is None:
                buffers[buffer] = output
            elif tensor.nbytes:
                copy = self._copy_step(buffer, self._add(output), tensor.nbytes)
                self.program.steps.append(copy)

    def _copy_step(self, source: int, target: int, nbytes: int) -> Call:
        kernel = f"copy_{nbytes}"
        self.kernels.setdefault(kernel, _copy_kernel(nbytes))
        return Call(kernel, (source,), (target,), traffic=(nbytes, nbytes))

    def bind_states(self, states: list[tuple[str, str]]) -> None:
        """Turn pairs of an output and an input into state kept in the instance."""
        program = self.program
        decided = {extent.output for extent in program.extents}
        for output_name, input_name in states:
            if output_name in decided:
                raise LoweringError(f"the shape of state '{output_name}' is known at run time only")
            source = next(t for t in program.inputs if t.name == input_name)
            result = next(t for t in program.outputs if t.name == output_name)
            if (source.dtype, source.shape) != (result.dtype, result.shape):
                raise LoweringError(
                    f"state '{output_name}' is {result.dtype}{list(result.shape)} but "
                    f"'{input_name}' is {source.dtype}{list(source.shape)}",
                    hint="--state pairs an output with an input of the same shape and dtype",
                )
            read = self._find("input", program.inputs.index(source))
            written = self._find("output", program.outputs.index(result))
            index = len(program.states)
            program.states.append(State(source, output_name, written))
            program.buffers[read] = Buffer(input_name, source.nbytes, "state", index)
            program.buffers[written] = Buffer(output_name, result.nbytes, "arena")
        self._renumber("input", program.inputs, {name for _, name in states})
        self._renumber("output", program.outputs, {name for name, _ in states})

    def _find(self, where: str, index: int) -> int:
        return next(
            number
            for number, buffer in enumerate(self.program.buffers)
            if buffer.where == where and buffer.index == index
        )

    def _renumber(self, where: str, tensors: list[Tensor], removed: set[str]) -> None:
        tensors[:] = [tensor for tensor in tensors if tensor.name not in removed]
        position = {tensor.name: index for index, tensor in enumerate(tensors)}
        for number, buffer in enumerate(self.program.buffers):
            if buffer.where == where:
                self.program.buffers[number] = Buffer(
                    buffer.name, buffer.nbytes, buffer.where, position[buffer.name]
                )


def _bindings(function: relax.Function) -> list[relax.Binding]:
    return [binding for block in function.body.blocks for binding in block.bindings]


def _nbytes(type_: relax.TensorType) -> int:
    count = int(np.prod([int(extent) for extent in type_.shape.values], dtype=np.int64))
    return count * dtype_of(str(type_.dtype)).itemsize


def _copy_kernel(nbytes: int) -> tirx.PrimFunc:
    source = te.placeholder((nbytes,), "uint8", name="source")
    target = te.compute((nbytes,), lambda i: source[i], name="target")
    return te.create_prim_func([source, target])
