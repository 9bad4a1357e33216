"""What a model means: ONNX Runtime with its optimisations off, in a process of its own, so that a
model that crashes it is an error message."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import onnx

from edgec.arrays import Array
from edgec.choices import find_choices
from edgec.compare import Justify
from edgec.data import Sample
from edgec.errors import ModelError, VerifyError
from edgec.external import load_external
from edgec.peers import EngineError, EngineProcess
from edgec.widen import restored, widen, widened

LIMIT_S = 300.0
"""For ONNX Runtime to load the model, and for each run: a foreign model may loop for ever."""


class Reference:
    """ONNX Runtime on one model, optimisations off; use it as a context manager.

    A second session, started when asked for, has them on: a measure of what rounding alone does.
    Where ONNX Runtime cannot load the model and `or_onnx` is set, ONNX's reference implementation
    takes its place, and `warning` says so. Results called as in `dtypes` are converted to these,
    and inputs to float32. Raises `VerifyError` where no engine can load it.
    """

    def __init__(
        self,
        model: onnx.ModelProto | str | os.PathLike[str],
        *,
        or_onnx: bool = False,
        dtypes: Mapping[str, np.dtype[Any]] = MappingProxyType({}),
    ) -> None:
        self.model = read_model(model)
        self.choices = find_choices(self.model)
        self._dtypes = dtypes
        self._stack = ExitStack()
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="edgec-"))
        self._paths = {False: Path(folder) / "probed.onnx", True: Path(folder) / "model.onnx"}
        for optimized, plain in ((False, self._probed()), (True, self._copy())):
            self._types = widen(plain)
            self._paths[optimized].write_bytes(plain.SerializeToString())
        self._engines: dict[bool, EngineProcess] = {}
        self._engine = "onnxruntime"
        self.warning = ""
        try:
            self._load(or_onnx)
        except EngineError as error:
            self.close()
            raise VerifyError(f"ONNX Runtime cannot load the model: {error.what}") from error
        except BaseException:
            self.close()
            raise

    def _load(self, or_onnx: bool) -> None:
        try:
            self._start(optimize=False)
        except EngineError as error:
            if not or_onnx:
                raise
            self._engines.pop(False).close()
            self._engine = "onnx"
            try:
                self._start(optimize=False)
            except EngineError:
                raise error from None
            self.warning = "checked against onnx's reference: ONNX Runtime cannot load the model"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes and remove the temporary files."""
        for engine in self._engines.values():
            engine.close()
        self._stack.close()

    def run(self, inputs: Mapping[str, Array]) -> tuple[Sample, dict[str, Justify]]:
        """The expected outputs of a sample, and the rules of those that compare floats.

        Raises `EngineError` where ONNX Runtime fails; the next sample finds a fresh process.
        """
        values = self._run(False, inputs)
        outputs = {output.name: values[output.name] for output in self.model.graph.output}
        return outputs, {name: choice.rule(values) for name, choice in self.choices.items()}

    def baseline(self, inputs: Mapping[str, Array]) -> Sample | None:
        """The outputs of ONNX Runtime with its optimisations on; None where there are none."""
        if self._engine != "onnxruntime":
            return None
        try:
            return self._run(True, inputs)
        except EngineError:
            return None

    def _run(self, optimize: bool, inputs: Mapping[str, Array]) -> Sample:
        try:
            if optimize not in self._engines:
                self._start(optimize)
            taken, given = self._types
            inputs = {
                n: a.astype(np.float32) if n in self._dtypes else a for n, a in inputs.items()
            }
            outputs = self._engines[optimize].run(widened(inputs, taken))
            return self._converted(restored(outputs, given))
        except EngineError:
            self._engines.pop(optimize).close()
            raise

    def _converted(self, values: Sample) -> Sample:
        with np.errstate(over="ignore"):
            return {
                name: value.astype(self._dtypes[name]) if name in self._dtypes else value
                for name, value in values.items()
            }

    def _start(self, optimize: bool) -> None:
        engine = self._engines[optimize] = EngineProcess(self._engine, LIMIT_S)
        engine.load(self._paths[optimize], threads=1, optimize=optimize)

    def _copy(self) -> onnx.ModelProto:
        copied = onnx.ModelProto()
        copied.CopyFrom(self.model)
        return copied

    def _probed(self) -> onnx.ModelProto:
        """The model with the probes of its choices as further outputs."""
        outputs = {output.name for output in self.model.graph.output}
        probes = dict.fromkeys(name for c in self.choices.values() for name in c.probes)
        probed = self._copy()
        probed.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in probes if name not in outputs
        )
        return probed


def reference(
    model: onnx.ModelProto | str | os.PathLike[str], inputs: Mapping[str, Array]
) -> Sample:
    """The outputs of `model` by ONNX Runtime, optimisations off."""
    with Reference(model) as engine:
        return engine.run(inputs)[0]


def read_model(model: onnx.ModelProto | str | os.PathLike[str]) -> onnx.ModelProto:
    """The model with its external data. `ModelError` unless it is one."""
    if isinstance(model, onnx.ModelProto):
        return model
    path = Path(model)
    try:
        read = onnx.load_model(path, load_external_data=False)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except Exception as error:
        raise ModelError("not an ONNX model, or a truncated one", where=str(path)) from error
    load_external(read, path.parent)
    return read
