"""Memory planning: what is live at the same time never shares memory, and little is wasted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.plan import Overwrite, Plan, plan
from edgec.program import ALIGNMENT, Buffer, Call, Extent, Program, State, Tensor, aligned


def program(
    sizes: dict[str, int],
    calls: list[tuple[str, list[str], list[str]]],
    within: dict[str, tuple[str, int]] | None = None,
) -> Program:
    """A program over arena buffers "a".."z"; "in" and "out" belong to the caller. `within` has the
    place of those that lie in another."""
    names = list(sizes)
    buffers = [
        Buffer(name, sizes[name], {"in": "input", "out": "output"}.get(name, "arena"))
        for name in names
    ]
    for name, (whole, offset) in (within or {}).items():
        number = names.index(name)
        buffers[number] = replace(buffers[number], within=names.index(whole), offset=offset)
    steps = [
        Call(kernel, tuple(map(names.index, reads)), tuple(map(names.index, writes)))
        for kernel, reads, writes in calls
    ]
    return Program("p", [], [], buffers, steps=list(steps))


def lifetimes(planned: Plan) -> dict[int, tuple[int, int]]:
    """First write and last use of each arena buffer, recomputed here."""
    live: dict[int, tuple[int, int]] = {}
    for index, call in enumerate(planned.program.calls()):
        for part in (*call.inputs, *call.outputs):
            buffer, _ = planned.program.whole(part)
            if planned.program.buffers[buffer].where == "arena":
                live[buffer] = (live.get(buffer, (index, index))[0], index)
    return live


def assert_sound(planned: Plan) -> None:
    """No two buffers that are live together overlap, unless one overwrites the other in place."""
    live, buffers = lifetimes(planned), planned.program.buffers
    for a in live:
        start = planned.offsets[a]
        assert start % ALIGNMENT == 0
        assert start + buffers[a].nbytes <= planned.arena_bytes
        for b in live:
            together = live[a][0] <= live[b][1] and live[b][0] <= live[a][1]
            apart = (
                start + buffers[a].nbytes <= planned.offsets[b]
                or planned.offsets[b] + buffers[b].nbytes <= start
            )
            if a < b and together and buffers[a].nbytes and buffers[b].nbytes:
                handed_over = live[a][1] == live[b][0] and start == planned.offsets[b]
                assert apart or handed_over, (buffers[a], buffers[b])


def results(steps: Program, memory: Callable[[int], memoryview]) -> dict[str, bytes]:
    """What is in the caller's outputs after a run: kernels mix all that they read into digests."""
    for call in steps.calls():
        read = b"".join(bytes(memory(buffer)) for buffer in call.inputs)
        for place, buffer in enumerate(call.outputs):
            digest = hashlib.sha256(bytes([place]) + read).digest()
            size = steps.buffers[buffer].nbytes
            memory(buffer)[:] = (digest * (size // len(digest) + 1))[:size]
    return {b.name: bytes(memory(n)) for n, b in enumerate(steps.buffers) if b.where == "output"}


def apart(steps: Program) -> Callable[[int], memoryview]:
    """Memory of its own for each buffer that lies in no other."""
    own = [memoryview(bytearray(buffer.nbytes)) for buffer in steps.buffers]

    def memory(buffer: int) -> memoryview:
        whole, offset = steps.whole(buffer)
        return own[whole][offset : offset + steps.buffers[buffer].nbytes]

    return memory


def in_arena(planned: Plan) -> Callable[[int], memoryview]:
    """Memory as planned."""
    arena, outside = memoryview(bytearray(planned.arena_bytes)), apart(planned.program)

    def memory(buffer: int) -> memoryview:
        whole, offset = planned.program.whole(buffer)
        start = planned.offsets.get(whole, 0) + offset
        nbytes = planned.program.buffers[buffer].nbytes
        return arena[start : start + nbytes] if whole in planned.offsets else outside(buffer)

    return memory


def test_a_chain_needs_two_buffers() -> None:
    planned = plan(
        program(
            {"in": 64, "a": 640, "b": 1280, "c": 640, "out": 64},
            [("k", ["in"], ["a"]), ("k", ["a"], ["b"]), ("k", ["b"], ["c"]), ("k", ["c"], ["out"])],
        )
    )
    assert_sound(planned)
    assert planned.arena_bytes == planned.bound_bytes == 640 + 1280


def test_the_order_is_chosen_to_lower_the_peak() -> None:
    """Given: both large values are made before either is reduced. Chosen: one after the other."""
    planned = plan(
        program(
            {"in": 64, "a": 6400, "b": 6400, "x": 64, "y": 64, "out": 64},
            [
                ("grow", ["in"], ["a"]),
                ("grow", ["in"], ["b"]),
                ("shrink", ["a"], ["x"]),
                ("shrink", ["b"], ["y"]),
                ("join", ["x", "y"], ["out"]),
            ],
        )
    )
    assert_sound(planned)
    assert planned.given_bound_bytes == 6400 + 6400 + 64
    assert planned.bound_bytes == 6400 + 64 + 64
    assert planned.arena_bytes == planned.bound_bytes


@pytest.mark.parametrize(
    ("later_reader", "extra", "shared"),
    [(False, False, True), (True, False, False), (False, True, False)],
    ids=["dies here", "read later", "read twice by the same call"],
)
def test_in_place_only_where_the_input_dies(later_reader: bool, extra: bool, shared: bool) -> None:
    sizes = {"in": 64, "a": 640, "b": 640, "out": 64}
    names = list(sizes)
    call = Call(
        "relu",
        tuple(names.index(n) for n in (["a", "a"] if extra else ["a"])),
        (names.index("b"),),
        in_place=((0, 0),),
    )
    given = program(sizes, [("k", ["in"], ["a"]), ("k", ["b"], ["out"])])
    given.steps.insert(1, call)
    if later_reader:
        given.steps.append(Call("k", (names.index("a"),), (names.index("out"),)))
    planned = plan(given)
    assert (planned.offsets[1] == planned.offsets[2]) is shared
    assert [call.kernel for call in planned.program.calls()].count("relu_over_0") == shared
    if shared:
        assert planned.in_place == {"relu_over_0": Overwrite("relu", source=0, target=1)}


def test_the_next_state_lives_until_the_end() -> None:
    given = program(
        {"in": 64, "h": 64, "next": 64, "b": 64, "out": 64},
        [("cell", ["in", "h"], ["next"]), ("k", ["in"], ["b"]), ("k", ["b"], ["out"])],
    )
    given.buffers[1] = Buffer("h", 64, "state")
    given.states.append(State(Tensor("h", "float32", (16,)), "next", 2))
    planned = plan(given)
    assert planned.offsets[2] != planned.offsets[3]


def test_the_count_of_an_output_lives_until_the_end() -> None:
    given = program(
        {"in": 64, "count": 8, "b": 64, "out": 64},
        [("sift", ["in"], ["out", "count"]), ("k", ["in"], ["b"]), ("k", ["b"], ["out"])],
    )
    given.extents.append(Extent("out", 0, 1))
    planned = plan(given)
    assert planned.offsets[1] != planned.offsets[2]


def test_a_whole_is_there_from_its_first_part_on() -> None:
    """`a` and `b` are parts of `ab`, and `b` of a slice of it: `c`, made in between, is apart."""
    given = program(
        {"in": 64, "a": 640, "c": 640, "b": 640, "ab": 1280, "tail": 320, "out": 64},
        [
            ("k", ["in"], ["a"]),
            ("k", ["a"], ["c"]),
            ("k", ["c"], ["b"]),
            ("k", ["tail"], ["out"]),
        ],
        within={"a": ("ab", 0), "b": ("ab", 640), "tail": ("ab", 960)},
    )
    planned = plan(given)
    assert_sound(planned)
    assert planned.arena_bytes == planned.bound_bytes == 1280 + 640
    assert set(planned.offsets) == {2, 4}
    assert results(planned.program, in_arena(planned)) == results(given, apart(given))


def test_what_lies_in_another_is_not_overwritten_in_place() -> None:
    sizes = {"in": 64, "a": 640, "b": 640, "ab": 1280, "c": 640, "out": 64}
    given = program(
        sizes,
        [("k", ["in"], ["a"]), ("k", ["in"], ["b"]), ("k", ["ab", "c"], ["out"])],
        within={"a": ("ab", 0), "b": ("ab", 640)},
    )
    given.steps.insert(2, Call("relu", (1,), (4,), in_place=((0, 0),)))
    planned = plan(given)
    assert planned.in_place == {}
    assert results(planned.program, in_arena(planned)) == results(given, apart(given))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_random_programs(data: st.DataObject) -> None:
    """Sound, and the arena within 1.1 times the peak of live bytes, or 4 KiB above it."""
    count = data.draw(st.integers(1, 24))
    sizes = {"in": 64, "out": 64} | {
        f"v{i}": data.draw(st.integers(1, 200)) * data.draw(st.sampled_from([1, 64, 512]))
        for i in range(count)
    }
    calls, within = [], {}
    known, free = ["in"], []
    for i in range(count):
        reads = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=3, unique=True))
        calls.append((f"k{i}", reads, [f"v{i}"]))
        free += [f"v{i}"] if sizes[f"v{i}"] % ALIGNMENT == 0 else []
        known.append(f"v{i}")
        if len(free) > 1 and data.draw(st.booleans()):
            joined, sizes[f"w{i}"] = [free.pop(), free.pop()], 0
            for part in joined:
                within[part] = (f"w{i}", sizes[f"w{i}"])
                sizes[f"w{i}"] += sizes[part]
            free.append(f"w{i}")
            known.append(f"w{i}")
    last = data.draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
    calls.append(("last", last, ["out"]))
    given_program = program(sizes, calls, within)
    planned = plan(given_program)
    assert_sound(planned)
    assert sorted(map(repr, planned.program.steps)) == sorted(map(repr, given_program.steps))
    assert planned.bound_bytes <= planned.given_bound_bytes
    assert planned.bound_bytes <= planned.arena_bytes
    assert results(planned.program, in_arena(planned)) == results(
        given_program, apart(given_program)
    )
    assert planned.arena_bytes <= max(1.1 * planned.bound_bytes, planned.bound_bytes + 4096)


def test_alignment() -> None:
    assert [aligned(n) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]
