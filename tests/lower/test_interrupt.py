"""Signals while TVM builds: the command ends as it does elsewhere, and TVM says nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tvm import te

from edgec.lower.interrupt import uninterrupted

INTERRUPTED = """
import signal, sys
from edgec import cli
from edgec.lower import convert

entry = convert.TABLE["Gemm"]

def interrupted(ctx, node, inputs):
    def element(value):
        signal.raise_signal({number})
        return value

    return entry(ctx, node, [ctx.map("interrupted", element, inputs[0]), *inputs[1:]])

convert.TABLE["Gemm"] = interrupted
sys.argv = ["edgec", "compile", {model!r}, "-o", {output!r}, "--no-cache", "--json"]
sys.exit(cli.main())
"""
"""Compiles a model; the signal comes in a function that TVM calls."""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "edgec: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_the_command_ends_as_it_does_elsewhere(
    number: signal.Signals, code: int, said: str, digits: Path, tmp_path: Path
) -> None:
    script = INTERRUPTED.format(
        number=int(number),
        model=str(digits),
        output=str(tmp_path / "x.edgec"),
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)
    assert list(tmp_path.iterdir()) == []


def test_a_signal_waits_for_tvm_to_return() -> None:
    reached: list[str] = []

    def element(i: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return x[i]

    x = te.placeholder((4,))
    before = signal.getsignal(signal.SIGINT)

    def build() -> None:
        with uninterrupted():
            te.compute((4,), element)
            reached.append("TVM returned")

    with pytest.raises(KeyboardInterrupt):
        build()
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


def test_what_no_function_handles_is_left_alone() -> None:
    """A shell's background job ignores SIGINT; a SIGTERM that comes after one ends it."""
    raised: list[int] = []
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, _: raised.append(number)),
    }
    try:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert raised == []
        assert raised == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_other_threads_have_no_handlers() -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            with uninterrupted():
                pass
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert raised == []
