"""A module that runs elsewhere (`edgec.places`): the static `edgec-run` of a variant, put there.

It does what `edgec.runtime.load.Module` does for `edgec run` and `edgec verify`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edgec import probe
from edgec.arrays import Array
from edgec.cache import Cache
from edgec.emit.artifact import linkable
from edgec.emit.linkable import link_runner
from edgec.emit.toolchain import Toolchain
from edgec.errors import ArtifactError, DataError, DeviceError, EdgecError, VerifyError
from edgec.places import Ended, Place
from edgec.runtime.load import Tensor, raw, read_manifest
from edgec.targets import Target, emulator, from_facts

_PROGRAM, _ARTIFACT = "./edgec-run", "model.edgec"
_ERRORS: Mapping[int, type[EdgecError]] = {
    error.exit_code: error for error in (VerifyError, ArtifactError, DataError, DeviceError)
}
_TIMES = re.compile(
    r"(\d+) runs, (\d+) threads: median ([\d.]+) us, min ([\d.]+) us, p90 ([\d.]+) us, "
    r"max ([\d.]+) us"
)


@dataclass
class RemoteModule:
    """A variant of an artifact at a place. Closed by `close` or a `with` block.

    Recurrent state is not kept between processes there: each run repeats all before it.
    """

    place: Place
    manifest: dict[str, Any]
    facts: dict[str, Any]
    target: Target
    options: tuple[str, ...] = ()
    given: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.variant: str = self.facts["id"]
        self.inputs = [_tensor(each) for each in self.facts["inputs"]]
        self.outputs = [_tensor(each) for each in self.facts["outputs"]]

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Run once: an array per input name in, a new array per output name out.

        Raises:
            DataError: an input is missing, unknown, or has another shape or dtype.
            DeviceError: the place cannot be reached, or the model failed there.
        """
        unknown = set(inputs) - {tensor.name for tensor in self.inputs}
        if unknown:
            raise DataError(f"the model has no input '{sorted(unknown)[0]}'")
        sample = b"".join(_bytes_of(tensor, inputs) for tensor in self.inputs)
        self.given = [*self.given, sample] if self.facts["states"] else [sample]
        said = self._ask(["--pipe"], b"".join(self.given)).output
        try:
            for _ in self.given:
                outputs, said = self._read(said)
        except (struct.error, ValueError) as error:
            raise DeviceError(f"wrote what is no output: {error}", where=self.place.name) from error
        return outputs

    def selftest(self) -> None:
        """Reproduce the golden data there. `VerifyError` where they are not."""
        self._ask(["--selftest"], b"")

    def bench(self, runs: int) -> dict[str, float]:
        """Microseconds of `runs` runs on random inputs there, and the number of threads."""
        said = self._ask(["--bench", str(runs)], b"").output.decode(errors="replace")
        found = _TIMES.search(said)
        if not found:
            raise DeviceError(f"wrote no times: {said[:200]}", where=self.place.name)
        keys = ("runs", "threads", "median_us", "min_us", "p90_us", "max_us")
        return dict(zip(keys, map(float, found.groups()), strict=True))

    def _ask(self, words: list[str], given: bytes) -> Ended:
        ended = self.place.run([_PROGRAM, _ARTIFACT, *words, *self.options], given, self.target)
        if ended.status:
            last = ended.errors.splitlines()[-1] if ended.errors else f"status {ended.status}"
            kind = _ERRORS.get(ended.status, DeviceError)
            raise kind(last.removeprefix("edgec-run: "), where=self.place.name)
        return ended

    def _read(self, said: bytes) -> tuple[dict[str, Array], bytes]:
        outputs = {}
        for tensor in self.outputs:
            (rank,) = struct.unpack_from("<q", said)
            *shape, nbytes = struct.unpack_from(f"<{rank + 1}q", said, 8)
            start = 8 * (rank + 2)
            array = np.frombuffer(said[start : start + nbytes], tensor.numpy_dtype)
            packed = tensor.numpy_shape != tensor.shape
            outputs[tensor.name] = array if packed else array.reshape(shape)
            said = said[start + nbytes :]
        return outputs, said

    def close(self) -> None:
        """Leave nothing at the place."""
        self.place.close()

    def __enter__(self) -> RemoteModule:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def load_at(
    place: Place, artifact: Path, *, threads: int = 0, spin_us: int | None = None
) -> RemoteModule:
    """The first variant of the artifact that runs at `place`, put there.

    Raises:
        ArtifactError: the artifact is damaged, or nothing in it runs there.
        DeviceError: the place cannot be reached.
    """
    try:
        manifest = read_manifest(artifact)
        facts = _choose(place, manifest, artifact)
        model, target = linkable(artifact, facts["id"])
        toolchain = Toolchain.of(target, Cache.default().path)
        place.put(_PROGRAM[2:], link_runner(model, toolchain))
        place.put(_ARTIFACT, artifact.read_bytes())
        options = ["--threads", str(threads)]
        options += [] if spin_us is None else ["--spin-us", str(spin_us)]
        return RemoteModule(place, manifest, facts, target, tuple(options))
    except BaseException:
        place.close()
        raise


def _choose(place: Place, manifest: dict[str, Any], artifact: Path) -> dict[str, Any]:
    answers = place.answers()
    found = None if answers is None else probe.machine(answers)
    refused = []
    for facts in manifest["variants"]:
        target = from_facts(facts["target"])
        why = _no_emulator(target) if found is None else _refusal(target, found)
        if not why:
            return dict(facts)
        refused.append(f"variant '{facts['id']}' {why}")
    fits = probe.fitting(found) if found else None
    raise ArtifactError(
        f"{place.name} cannot run it: {'; '.join(refused)}",
        where=str(artifact),
        hint=f"edgec compile MODEL --target {fits.name}"
        if fits
        else "compile the model for a machine that QEMU emulates here: --target rpi4",
    )


def _no_emulator(target: Target) -> str:
    return "" if emulator(target) else f"is for {target.arch}, which nothing emulates here"


def _refusal(target: Target, found: probe.Machine) -> str:
    if target.arch != found.arch:
        return f"is for {target.arch}, this is {found.arch}"
    missing = [flag for flag in target.cpu_flags if found.features and flag not in found.features]
    return f"needs a CPU with {', '.join(missing)}" if missing else ""


def _tensor(facts: Mapping[str, Any]) -> Tensor:
    from edgec.program import Tensor as Described

    described = Described(facts["name"], facts["dtype"], tuple(facts["shape"]))
    return Tensor(described.name, described.dtype, described.shape, described.nbytes)


def _bytes_of(tensor: Tensor, inputs: Mapping[str, Any]) -> bytes:
    if tensor.name not in inputs:
        raise DataError(f"input '{tensor.name}' is missing")
    array = np.asarray(inputs[tensor.name])
    if array.dtype.name == tensor.dtype and array.shape == tensor.shape:
        array = raw(array, tensor.numpy_dtype)
    if array.dtype != tensor.numpy_dtype or array.shape != tensor.numpy_shape:
        raise DataError(
            f"input '{tensor.name}' must be {tensor.numpy_dtype} {list(tensor.numpy_shape)}, "
            f"not {array.dtype} {list(array.shape)}"
        )
    return array.tobytes()
