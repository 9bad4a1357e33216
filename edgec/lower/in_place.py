"""Which inputs of a kernel its output may overwrite.

An output may take the memory of an input when every element of the input is read only to compute
the element of the output at the same index. Then no order of the loops reads a value already
overwritten.
"""

from __future__ import annotations

from tvm import s_tir, tirx
from tvm.ir import Range
from tvm_ffi import structural_equal


def in_place_pairs(function: tirx.PrimFunc, inputs: int) -> tuple[tuple[int, int], ...]:
    """(input position, output position) pairs of `function` that may share memory.

    `function` is unscheduled TIR whose first `inputs` parameters are read and whose others written.
    """
    params = list(function.params)
    blocks = _blocks(function)
    pairs = []
    for position, param in enumerate(params[:inputs]):
        reached = _follow(param, blocks)
        if reached is None:
            continue
        for out_position, output in enumerate(params[inputs:]):
            if reached.same_as(output) and str(param.dtype) == str(output.dtype):
                pairs.append((position, out_position))
    return tuple(pairs)


class _Block:
    """One block of a kernel: the buffer it writes and how it reads each buffer."""

    def __init__(self, block: s_tir.SBlock) -> None:
        self.written = [region.source for region in block.writes]
        self.read = [region.source for region in block.reads]
        self.spatial = all(int(var.iter_type) == 0 for var in block.iter_vars)
        self._regions = [(region.source, list(region.region)) for region in block.reads]
        self._target = list(block.writes[0].region) if len(block.writes) == 1 else []

    def reads_where_it_writes(self, buffer: tirx.Buffer) -> bool:
        """Whether `buffer` is read at the index that is written, and nowhere else."""
        return self.spatial and all(
            _same_point(region, self._target)
            for read, region in self._regions
            if read.same_as(buffer)
        )


def _blocks(function: tirx.PrimFunc) -> list[_Block]:
    schedule = s_tir.Schedule(function)
    children = schedule.get_child_blocks(schedule.get_sblock("root"))
    return [_Block(schedule.get(child)) for child in children]


def _follow(param: tirx.Buffer, blocks: list[_Block]) -> tirx.Buffer | None:
    """The buffer at the end of the elementwise chain that starts at `param`."""
    current = param
    while True:
        readers = [block for block in blocks if any(b.same_as(current) for b in block.read)]
        if not readers:
            return None if current.same_as(param) else current
        if len(readers) != 1:
            return None
        block = readers[0]
        if not block.reads_where_it_writes(current):
            return None
        current = block.written[0]


def _same_point(a: list[Range], b: list[Range]) -> bool:
    """Whether two regions are one and the same element."""
    return len(a) == len(b) and all(
        structural_equal(x.min, y.min) and int(x.extent) == int(y.extent) == 1
        for x, y in zip(a, b, strict=True)
    )
