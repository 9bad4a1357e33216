"""Whether an installation is sound: what is there, what is missing, and the line that installs
it."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from edgec.cache import Cache
from edgec.emit.cuda_nvrtc import has_gpu_part, nvrtc
from edgec.emit.toolchain import Toolchain
from edgec.errors import EdgecError, TargetError
from edgec.targets import Target, emulator, host, resolve, runs_here

PINS = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1"}
"""The one pair of versions that works: a newer tvm-ffi crashes when a module is saved."""

_TVM_TRIAL = """
import edgec.lower
import tvm
from tvm import te
a = te.placeholder((8,), "float32", name="a")
b = te.compute((8,), lambda i: a[i] + 1.0, name="b")
function = tvm.ir.load_json(tvm.ir.save_json(te.create_prim_func([a, b])))
import numpy as np
source = tvm.runtime.tensor(np.arange(8, dtype="float32"))
target = tvm.runtime.tensor(np.zeros(8, dtype="float32"))
tvm.compile(function, target="llvm")(source, target)
assert target.numpy().tolist() == [float(i + 1) for i in range(8)]
"""
_PROCESSOR_TRIAL = """
import json, sys
from edgec.errors import EdgecError
from edgec.lower.processor import check_processor
from edgec.targets import from_facts
try:
    check_processor(from_facts(json.load(sys.stdin)))
except EdgecError as error:
    sys.exit(print(error.what, error.hint, sep="\\n") or 1)
"""
_LIBRARY = '__attribute__((visibility("default"))) int edgec_trial(void) { return 0; }\n'
_TRIAL_SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `fix` is the line that mends it."""

    what: str
    found: str
    ok: bool
    required: bool = True
    fix: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def examine(
    target: Target | None = None, *, cc: str | None = None, ndk: str | None = None
) -> list[Finding]:
    """Look at everything compiling needs; for `target` also at what proving its code needs.

    `cc` and `ndk` name the user's own compiler, as for compiling.
    """
    findings = [_python(), _host(), *(_pin(name, version) for name, version in PINS.items())]
    findings += [_tvm(), *(_package(name) for name in ("onnx", "onnxruntime", "ziglang"))]
    findings.append(_linker(target or _a_target(), cc, ndk))
    if target is not None:
        findings.append(_processor(target))
        if has_gpu_part(target):
            findings.append(_gpu_compiler(target))
    foreign = target or resolve("aarch64")
    if not runs_here(foreign):
        findings.append(_emulator(foreign))
    return findings


def _python() -> Finding:
    ok = (3, 11) <= sys.version_info < (3, 15)
    return Finding("Python", platform.python_version(), ok, fix="use Python 3.11 to 3.14")


def _host() -> Finding:
    try:
        return Finding("host", host().name, True, required=False)
    except EdgecError as error:
        return Finding("host", f"cross-compiling only: {error.what}", False, required=False)


def _a_target() -> Target:
    try:
        return host()
    except EdgecError:
        return resolve("aarch64")


def _pin(package: str, wanted: str) -> Finding:
    fix = f"pip install '{package}=={wanted}'"
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Finding(package, "not installed", False, fix=fix)
    return Finding(package, found, found == wanted, fix=fix)


def _package(name: str) -> Finding:
    if find_spec(name) is None:
        return Finding(name, "not installed", False, fix=f"pip install {name}")
    return Finding(name, metadata.version(name), True)


def _tvm() -> Finding:
    """Save, load, compile and run a function in a child process, which may crash."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TVM_TRIAL], capture_output=True, timeout=_TRIAL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return Finding("TVM at work", f"no answer in {_TRIAL_SECONDS} s", False)
    pins = " ".join(f"'{name}=={version}'" for name, version in PINS.items())
    found = "saves, compiles and runs" if done.returncode == 0 else f"exit {done.returncode}"
    return Finding("TVM at work", found, done.returncode == 0, fix=f"pip install {pins}")


def _gpu_compiler(target: Target) -> Finding:
    """Whether the compiler for the target's GPU can be loaded."""
    what = f"NVRTC for a driver of CUDA {target.cuda}"
    try:
        version = nvrtc(target.cuda, target.cuda_path).version
    except TargetError as error:
        return Finding(what, error.what, False, fix=error.hint)
    return Finding(what, ".".join(map(str, version)), True)


def _linker(target: Target, cc: str | None, ndk: str | None) -> Finding:
    """Whether a library can be linked for `target`, tried."""
    what = f"linker for {target.name} ({target.libc})"
    try:
        toolchain = Toolchain.of(target, Cache.default().path, cc, ndk)
        trial = toolchain.compile(_LIBRARY)
        toolchain.shared_library([trial], exports=["edgec_trial"], soname="libtrial.so")
        return Finding(what, toolchain.version(), True)
    except EdgecError as error:
        return Finding(what, error.what.splitlines()[0], False, fix=error.hint)


def _processor(target: Target) -> Finding:
    """Whether LLVM knows the target's processor; asked in a child process, as TVM may crash."""
    what = f"code generator for {target.mcpu}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROCESSOR_TRIAL],
            input=json.dumps(target.facts()),
            capture_output=True,
            text=True,
            timeout=_TRIAL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Finding(what, f"no answer in {_TRIAL_SECONDS} s", False)
    said = (done.stdout or done.stderr).strip().splitlines() or [f"exit {done.returncode}"]
    if done.returncode == 0:
        return Finding(what, " ".join(["LLVM", *target.features]), True)
    return Finding(what, said[0], False, fix=said[-1] if len(said) > 1 else "")


def _emulator(target: Target) -> Finding:
    path = emulator(target)
    return Finding(
        f"emulator for {target.name}",
        path or "none: modules are proved by their twin on this host",
        path is not None,
        required=False,
        fix="apt-get install qemu-user" if target.arch != platform.machine() else "",
    )
