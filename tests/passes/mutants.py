"""Plants bugs in passes, and finds out whether the pass's own cases notice.

A mutant is a pass with one thing changed: a comparison, a numeric constant, `and` or `or`, the
operands of what does not commute, a default, or a guard taken out. It is known by its pass, its
function, and the line before and after, so that moving code about does not make it another one.
An index of 0 never becomes -1: in a list of one, which most are, that is the same element.
Each is compiled and tried in a process of its own; no file of the tree is changed.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from edgec.passes import PASSES

SECONDS = 60
"""What a mutant may take; one that never ends is as good as noticed."""

_FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.In: ast.NotIn,
}
_FLIPPED |= {after: before for before, after in _FLIPPED.items()}
_ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)
_BODIES = ("body", "orelse", "handlers", "finalbody")


@dataclass(frozen=True)
class Mutant:
    """`before` became `after` in function `where` of `module`; `number` tells twins apart."""

    module: str
    where: str
    before: str
    after: str
    number: int = 1

    def __str__(self) -> str:
        twin = f" ({self.number})" if self.number > 1 else ""
        return f"{self.module}, {self.where}: {self.before}  =>  {self.after}{twin}"


def all_mutants() -> list[Mutant]:
    """Those of every pass, in an order that looks random and that other mutants do not disturb."""
    found = [m for module in modules() for m in _mutate(module, _parse(module))]
    return sorted(found, key=lambda mutant: hashlib.sha256(str(mutant).encode()).digest())


def modules() -> list[str]:
    """The modules of the passes in the table."""
    return [name.replace("-", "_") for name in PASSES]


def survivors(mutants: Sequence[Mutant | str]) -> list[Mutant | str]:
    """Those that pass all cases of their pass; a module's name stands for the pass unchanged."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["test_passes"])

    def survives(mutant: Mutant | str) -> bool:
        process = context.Process(target=_try, args=(mutant,))
        process.start()
        process.join()
        return process.exitcode == 0

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        lives = list(pool.map(survives, mutants))
    return [mutant for mutant, alive in zip(mutants, lives, strict=True) if alive]


def _try(mutant: Mutant | str) -> None:
    """Run the cases of the pass; the exit code is 0 when none fails."""
    import test_passes

    signal.alarm(SECONDS)
    if isinstance(mutant, Mutant):
        _install(mutant)
    module = mutant.module if isinstance(mutant, Mutant) else mutant
    try:
        for case in test_passes.CASES:
            if case.file == module:
                test_passes.check(case, trusted=True)
    except BaseException:
        os._exit(1)


def _install(mutant: Mutant) -> None:
    tree = _parse(mutant.module)
    for found in _mutate(mutant.module, tree):
        if found == mutant:
            break
    else:
        raise ValueError(f"there is no {mutant}")
    module = importlib.import_module(f"edgec.passes.{mutant.module}")
    exec(compile(ast.fix_missing_locations(tree), f"<{mutant}>", "exec"), module.__dict__)
    name = mutant.module.replace("_", "-")
    PASSES[name] = getattr(module, PASSES[name].__name__)


def _parse(module: str) -> ast.Module:
    path = importlib.import_module(f"edgec.passes.{module}").__file__
    assert path is not None
    return ast.parse(Path(path).read_text())


def _mutate(module: str, tree: ast.Module) -> Iterator[Mutant]:
    """Change `tree` in place, one change at a time: what is yielded describes its present state."""
    twins: Counter[tuple[str, str, str]] = Counter()
    for line, node, where in _nodes(tree, tree, ""):
        before = _head(line)
        for removed in _edits(node):
            key = (where, removed or before, "pass" if removed else _head(line))
            twins[key] += 1
            yield Mutant(module, *key, twins[key])


def _nodes(node: ast.AST, line: ast.AST, where: str) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """Each node with the statement and the function that it is in; types are left out."""
    yield line, node, where
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or (name == "slice" and _is_first(node)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                yield from _nodes(child, child, f"{where}.{child.name}".lstrip("."))
            elif isinstance(child, ast.AST):
                yield from _nodes(child, child if isinstance(child, ast.stmt) else line, where)


def _head(line: ast.AST) -> str:
    """The statement without the statements in it."""
    alone = copy.copy(line)
    for name in _BODIES:
        if hasattr(line, name):
            setattr(alone, name, [])
    return ast.unparse(alone).strip()


def _edits(node: ast.AST) -> Iterator[str]:
    """Make each change that can be made at `node`, and undo it; yield the statement taken out."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                ops[i] = _FLIPPED[type(op)]()
                yield ""
                ops[i] = op
        case ast.BoolOp(op=op):
            node.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield ""
            node.op = op
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _ORDERED):
            node.left, node.right = right, left
            yield ""
            node.left, node.right = left, right
        case ast.Subscript(slice=ast.Constant() as index) if _is_first(node):
            index.value = 1
            yield ""
            index.value = 0
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            for step in (1, -1):
                node.value = value + step
                yield ""
                node.value = value
        case ast.Call(func=ast.Attribute(attr="get"), args=[_, _] as values):
            yield from _defaults(values, 1)
        case ast.arguments(defaults=values, kw_defaults=named):
            for i in range(len(values)):
                yield from _defaults(values, i)
            for i in range(len(named)):
                yield from _defaults(named, i)
    for name in _BODIES:
        block = getattr(node, name, None)
        for i, statement in enumerate(block if isinstance(block, list) else ()):
            if _is_skip(statement):
                block[i] = ast.Pass()
                yield ast.unparse(statement)
                block[i] = statement


def _defaults(values: list[ast.expr], index: int) -> Iterator[str]:
    """Change a default that is no number; numbers are changed as the constants they are."""
    value = values[index]
    match value:
        case ast.Constant(value=bool() as known):
            values[index] = ast.Constant(not known)
        case ast.Constant(value=str() | bytes() as known):
            values[index] = ast.Constant(known + known[:1] + known[:1])
        case ast.Name() | ast.Attribute():
            values[index] = ast.BinOp(value, ast.Add(), ast.Constant(1))
        case _:
            return
    yield ""
    values[index] = value


def _is_first(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and ast.unparse(node.slice) == "0"


def _is_skip(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Raise)
        and isinstance(statement.exc, ast.Call)
        and isinstance(statement.exc.func, ast.Name)
        and statement.exc.func.id == "Skip"
    )
