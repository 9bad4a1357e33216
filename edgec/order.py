"""Orders of a program's steps that keep few bytes live.

The best one is hard to find (Sethi 1975); these two are good in different places. Both are
deterministic.
"""

from __future__ import annotations

from collections import defaultdict

import networkx as nx

from edgec.program import Program, Step, reads, writes


def _dependencies(program: Program) -> nx.MultiDiGraph:
    """Steps as nodes, an edge per buffer that one hands to another.

    Besides true dependencies, a step that rewrites a buffer comes after everything before it that
    touched the buffer, or bytes of it.
    """
    graph = nx.MultiDiGraph()
    writer: dict[int, int] = {}
    readers: dict[int, list[int]] = defaultdict(list)
    touched = _touched(program)
    for index, step in enumerate(program.steps):
        graph.add_node(index)
        for buffer in sorted({each for read in reads(step) for each in touched[read]}):
            if buffer in writer:
                graph.add_edge(writer[buffer], index, buffer)
            readers[buffer].append(index)
        for buffer in sorted({each for written in writes(step) for each in touched[written]}):
            for earlier in (*readers[buffer], *([writer[buffer]] if buffer in writer else [])):
                if earlier != index:
                    graph.add_edge(earlier, index, buffer)
            writer[buffer] = index
            readers[buffer] = []
    return graph


def _touched(program: Program) -> list[list[int]]:
    """For each buffer those that have bytes in common with it, itself included."""
    spans = []
    sharing: dict[int, list[int]] = defaultdict(list)
    for number, buffer in enumerate(program.buffers):
        whole, start = program.whole(number)
        spans.append((whole, start, start + buffer.nbytes))
        sharing[whole].append(number)
    return [
        [
            other
            for other in sharing[whole]
            if other == number or (start < spans[other][2] and spans[other][1] < stop)
        ]
        for number, (whole, start, stop) in enumerate(spans)
    ]


def smallest_growth_first(program: Program) -> list[Step]:
    """Greedy order: of the steps that can run, the one after which the fewest bytes are live."""
    graph = _dependencies(program)
    sizes = program.arena()
    remaining: dict[int, int] = defaultdict(int)
    read = [program.wholes(reads(step)) for step in program.steps]
    written = [program.wholes(writes(step)) for step in program.steps]
    for buffers in read:
        for buffer in buffers:
            remaining[buffer] += 1
    waiting = {index: len(set(graph.predecessors(index))) for index in graph}
    ready = [index for index, count in waiting.items() if count == 0]
    order: list[Step] = []
    started: set[int] = set()

    def growth(index: int) -> tuple[int, int]:
        born = sum(sizes.get(b, 0) for b in written[index] - started)
        freed = sum(sizes.get(b, 0) for b in read[index] if remaining[b] == 1)
        return born - freed, index

    while ready:
        chosen = min(ready, key=growth)
        ready.remove(chosen)
        order.append(program.steps[chosen])
        started |= written[chosen]
        for buffer in read[chosen]:
            remaining[buffer] -= 1
        for follower in set(graph.successors(chosen)):
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ready.append(follower)
    return order


def last_use_first(program: Program) -> list[Step]:
    """Depth first from the outputs backwards, the branch with the most bytes first."""
    graph = _dependencies(program)
    produced = {
        index: sum(program.buffers[b].nbytes for b in writes(step))
        for index, step in enumerate(program.steps)
    }
    done: set[int] = set()
    order: list[Step] = []
    for sink in [index for index in graph if graph.out_degree(index) == 0]:
        stack = [(sink, False)]
        while stack:
            index, expanded = stack.pop()
            if index in done:
                continue
            if expanded:
                done.add(index)
                order.append(program.steps[index])
                continue
            stack.append((index, True))
            before = sorted(set(graph.predecessors(index)) - done, key=lambda i: (produced[i], -i))
            stack.extend((i, False) for i in before)
    return order
