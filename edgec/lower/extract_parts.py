"""Buffers within buffers: what is joined is written in its place, or is there already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from edgec.program import Buffer, Call, Program

CopyStep = Callable[[int, int, int], Call]
"""(source, target, nbytes) -> a step that copies the first bytes of a buffer."""


def join(
    program: Program,
    movable: set[int],
    name: str,
    operands: Sequence[tuple[int, int]],
    copy_step: CopyStep,
) -> tuple[int, list[Call]]:
    """The buffer of a concatenation of `operands`, buffers and the bytes of each that count, and
    the steps that copy those of them which are not `movable`: there a buffer says where it lies.

    Neighbours in one buffer are that buffer, or a piece of it: so a tensor that grows by one
    operand at a time, or is put together again, is never copied.
    """
    buffers = program.buffers
    found = _merged(program, operands)
    if len(found) == 1:
        return found[0][0], []
    run = _run(program, found)
    if run is not None:
        whole, start, stop = run
        buffers.append(Buffer(name, stop - start, "arena", within=whole, offset=start))
        return len(buffers) - 1, []
    buffers.append(Buffer(name, sum(size for _, size in found), "arena"))
    whole, offset, steps = len(buffers) - 1, 0, []
    for source, size in found:
        part = Buffer(name, size, "arena", within=whole, offset=offset)
        if source in movable:
            movable.remove(source)
            buffers[source] = replace(part, name=buffers[source].name)
        else:
            buffers.append(part)
            steps.append(copy_step(source, len(buffers) - 1, size))
        offset += size
    movable.add(whole)
    return whole, steps


def _merged(program: Program, operands: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The operands, those that together fill a buffer replaced by it."""
    found: list[tuple[int, int]] = []
    for operand in operands:
        found.append(operand)
        for count in range(1, len(found) + 1):
            run = _run(program, found[-count:])
            if run is None:
                break
            whole, start, stop = run
            if (start, stop) == (0, program.buffers[whole].nbytes):
                found[-count:] = [(whole, stop)]
                break
    return found


def _run(program: Program, operands: Sequence[tuple[int, int]]) -> tuple[int, int, int] | None:
    """The buffer in which the operands follow each other, and from where to where, in bytes; None
    where they do not."""
    places = [program.whole(number) for number, _ in operands]
    whole, start = places[0]
    stop = start
    for (number, size), place in zip(operands, places, strict=True):
        if place != (whole, stop) or program.buffers[number].nbytes != size:
            return None
        stop += size
    return whole, start, stop
