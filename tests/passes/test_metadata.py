"""What a model says of itself survives every pass: each pass rewrites a model that says much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx
import pytest
from onnx import helper
from test_passes import CASES, Case, parse_model

from edgec.graph import load
from edgec.limits import graphs
from edgec.passes import PASSES
from edgec.rewrite import optimize, parse

HEADER = ("producer_name", "producer_version", "domain", "model_version", "doc_string")


def first_rewrite(name: str) -> Case:
    """The first case in which the pass changes something."""
    return next(case for case in CASES if case.passname == name and "after" in case.sections)


def nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs(model.graph):
        yield from graph.node


def decorate(model: onnx.ModelProto) -> None:
    """Name everything, document it, and add metadata; a node's say which node it is."""
    model.producer_name, model.producer_version = "someone", "1.2"
    model.domain, model.model_version, model.doc_string = "org.example", 7, "a model"
    helper.set_model_props(model, {"labels": "a,b", "author": "me"})
    model.graph.name, model.graph.doc_string = "main", "a graph"
    model.graph.metadata_props.add(key="graph", value="yes")
    for info in (*model.graph.input, *model.graph.output):
        info.doc_string = f"what {info.name} is"
        info.metadata_props.add(key="tensor", value=info.name)
    for i, node in enumerate(nodes(model)):
        node.name = f"node {i}"
        node.doc_string = f"what {node.name} does"
        node.metadata_props.add(key="layer", value=node.name)


def declarations(model: onnx.ModelProto) -> list[list[tuple[Any, ...]]]:
    return [
        [(i.name, i.doc_string, list(i.metadata_props)) for i in side]
        for side in (model.graph.input, model.graph.output)
    ]


@pytest.mark.parametrize("name", PASSES)
def test_what_a_model_says_survives(name: str) -> None:
    case = first_rewrite(name)
    model, _ = parse_model(case.sections["before"])
    decorate(model)
    graph = load(model)
    if "prepare" in case.sections:
        optimize(graph, parse(case.sections["prepare"], PASSES))
    (rewriter,) = parse(f"{name}{{{case.sections.get('options', '')}}}", PASSES)

    (report,) = optimize(graph, [rewriter])

    assert report.rewrites > 0
    result = graph.to_source_opset()
    for field in HEADER:
        assert getattr(result, field) == getattr(model, field), field
    assert result.metadata_props == model.metadata_props
    assert (result.graph.name, result.graph.doc_string) == ("main", "a graph")
    assert result.graph.metadata_props == model.graph.metadata_props
    assert declarations(result) == declarations(model)
    known = {node.name for node in nodes(model)}
    names = [node.name for node in nodes(result)]
    assert len(set(names)) == len(names)
    for node in nodes(result):
        if node.op_type == "Constant":
            continue
        [entry] = node.metadata_props
        assert entry.key == "layer"
        assert entry.value in known
        assert node.doc_string == f"what {entry.value} does"
