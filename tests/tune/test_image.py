"""Kernels are linked to images by a linker of our own."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from edgec.cache import Cache
from edgec.emit.toolchain import Toolchain
from edgec.errors import LoweringError
from edgec.targets import resolve
from edgec.tune.boards import Local
from edgec.tune.connection import Connection
from edgec.tune.image import Image, link
from edgec.tune.kernel import Buffer, Kernel
from edgec.tune.wire import Asked, Effort, Outcome, read_outcome, trial_request

SOURCE = r"""
#include <math.h>
#include <string.h>
#include <stdint.h>
#include <stdlib.h>
static const float table[4] = {1, 2, 3, 4};
static int32_t counted = 5;
static const float *where = table + 1;
float (*root)(float) = sqrtf;
__attribute__((noinline)) static float own(float x) { return x + (float)counted; }
int32_t kernel(float *in, float *out) {
  memset(out, 0, 64);
  counted++;
  for (int i = 0; i < 4; i++) out[i] = own(table[i]) + *where + root(in[i] * in[i]) - fabsf(in[i]);
  counted--;
  return 0;
}
int32_t fails(float *in, float *out) { (void)in, (void)out; return 7; }
int32_t divides(int32_t *in, int32_t *out) {
  volatile int32_t seven = 7, zero = in[0] - in[0];
  out[0] = seven / zero;
  return 0;
}
int32_t jumps(float *in, float *out) { (void)in, (void)out; __builtin_trap(); }
int32_t strays(float *in, float *out) { (void)in; out[16] = 1; return 0; }
"""
KERNEL = Kernel("c", None, (Buffer("float32", 64, "input"), Buffer("float32", 64, "output")))  # type: ignore[arg-type]
EFFORT = Effort(bursts=3, burst_s=0.0001, limit_s=5)


def compiled(arch: str, source: str = SOURCE) -> bytes:
    triple = f"{arch}-linux-musl"
    return Toolchain(triple, Cache.default().path).compile(source, options=("-fno-builtin",))


def outcome(arch: str, symbol: str) -> Outcome:
    """What comes of a function of `SOURCE` on a machine of that kind."""
    target = resolve("x86-64-v2" if arch == "x86_64" else "aarch64")
    connection = Connection(Local())
    try:
        host = connection.start(target, Cache.default())
        image = link(compiled(arch), symbol, host.imports)
        request = trial_request(KERNEL, image, 0, Asked(1, outputs=True), EFFORT)
        return read_outcome(connection.ask(request, 30), EFFORT.bursts)
    finally:
        connection.close()


@pytest.fixture(params=["x86_64", "aarch64"])
def arch(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name != subprocess.check_output(["uname", "-m"], text=True).strip() and (
        name == "x86_64" or shutil.which("qemu-aarch64") is None
    ):
        pytest.skip(f"cannot run code for {name}")
    return name


def test_data_constants_and_calls_are_found(arch: str) -> None:
    found = outcome(arch, "kernel")
    assert found.error == ""
    assert len(found.seconds) == 3
    out = np.frombuffer(found.outputs, np.float32)
    np.testing.assert_allclose(out[:4], [9, 10, 11, 12], atol=1e-5)
    assert not out[4:].any()


@pytest.mark.parametrize(
    ("symbol", "error"),
    [
        ("fails", "it returned 7"),
        ("strays", "crash: SIGSEGV"),
        ("divides", "crash: SIGFPE"),
        ("jumps", "crash: SIG"),
    ],
)
def test_what_goes_wrong_is_told(arch: str, symbol: str, error: str) -> None:
    if arch == "aarch64" and symbol == "divides":
        pytest.skip("AArch64 divides by zero")
    assert outcome(arch, symbol).error.startswith(error)


def test_an_undefined_symbol_is_named() -> None:
    with pytest.raises(LoweringError, match="nobody defines 'memset'"):
        link(compiled("x86_64"), "kernel", {"sqrtf": 1, "fabsf": 2})


def test_a_missing_kernel_is_named() -> None:
    imports = {"memset": 1, "sqrtf": 2, "fabsf": 3}
    with pytest.raises(LoweringError, match="does not define 'absent'"):
        link(compiled("x86_64"), "absent", imports)


@pytest.mark.parametrize("cut", [0, 10, 100, 600])
def test_a_damaged_object_is_refused(cut: int) -> None:
    with pytest.raises(LoweringError, match="object"):
        link(compiled("x86_64")[:cut], "kernel", {})


def test_a_malformed_request_is_refused() -> None:
    beyond = Image(bytes(8192), 4096, 9000, ())
    stray = Image(bytes(8192), 4096, 0, ((0, 8190),))
    connection = Connection(Local())
    try:
        connection.start(resolve("host"), Cache.default())
        for image in (beyond, stray):
            request = trial_request(KERNEL, image, 0, Asked(1), EFFORT)
            answer = read_outcome(connection.ask(request, 10), EFFORT.bursts)
            assert answer.error == "the request is malformed"
        whole = trial_request(KERNEL, Image(bytes(4096), 4096, 0, ()), 0, Asked(1), EFFORT)
        for size in (4, 50, 119, len(whole) - 1):
            answer = read_outcome(connection.ask(whole[:4] + whole[4:size], 10), EFFORT.bursts)
            assert answer.error == "the request is malformed"
    finally:
        connection.close()
