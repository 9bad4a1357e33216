"""Recurrent state: outputs that are the next run's inputs, checked and suggested."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgec.errors import UsageError
from edgec.program import Tensor

_ROLES = frozenset(
    ["in", "input", "out", "output", "next", "new", "prev", "previous", "past", "present", "n"]
)
"""Words that tell an input from the output which belongs to it, and nothing else."""


def check_states(
    states: Sequence[tuple[str, str]], inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> None:
    """Raises UsageError unless `states`, (output, input) names, pair tensors of equal type, each
    used once."""
    for kind, tensors, chosen in (
        ("output", outputs, [output for output, _ in states]),
        ("input", inputs, [input_ for _, input_ in states]),
    ):
        known = [tensor.name for tensor in tensors]
        for index, name in enumerate(chosen):
            if name not in known:
                raise UsageError(
                    f"the model has no {kind} '{name}'",
                    where="--state",
                    hint=f"{kind}s: {', '.join(known)}; write --state OUT=IN",
                )
            if name in chosen[:index]:
                raise UsageError(f"the {kind} '{name}' is paired twice", where="--state")
    sources = {tensor.name: tensor for tensor in inputs}
    results = {tensor.name: tensor for tensor in outputs}
    for output, input_ in states:
        result, source = results[output], sources[input_]
        if (result.dtype, result.shape) != (source.dtype, source.shape):
            raise UsageError(
                f"'{output}' is {_type(result)}, but '{input_}' is {_type(source)}",
                where="--state",
                hint="a state pairs an output with an input of the same dtype and shape",
            )


def suggest_states(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> list[tuple[str, str]]:
    """Pairs of (output, input) that look like state: names agree but for words such as "next", and
    dtype and shape are equal."""
    pairs = []
    free = list(inputs)
    for output in outputs:
        for source in free:
            if (output.dtype, output.shape) == (source.dtype, source.shape) and (
                _stem(output.name) == _stem(source.name) != ()
            ):
                pairs.append((output.name, source.name))
                free.remove(source)
                break
    return pairs


def _stem(name: str) -> tuple[str, ...]:
    """The words of a name without those of `_ROLES`: `state_next` and `stateN` are `state`; a
    trailing n after one letter falls too, as in `hn` and `cn`."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)
    lowered = [word.lower() for word in words]
    return tuple(
        word[:-1] if len(word) == 2 and word.endswith("n") else word
        for word in lowered
        if word not in _ROLES
    )


def _type(tensor: Tensor) -> str:
    return f"{tensor.dtype}[{', '.join(map(str, tensor.shape))}]"
