"""The helper process: its failures become errors, and it never stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import onnx
import onnx.parser
import pytest

from edgec import sandbox
from edgec.errors import ModelError

ROOT = Path(__file__).parents[1]
MODEL = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 21]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
).SerializeToString()


def helper_pid() -> int:
    sandbox.start()
    assert sandbox._helper is not None
    return sandbox._helper.pid


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def assert_ends(pid: int) -> None:
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline, "the helper process is still there"
        time.sleep(0.02)


@pytest.mark.parametrize("trusted", [False, True])
def test_answers(trusted: bool) -> None:
    inferred = onnx.ModelProto.FromString(sandbox.call("infer", MODEL, trusted=trusted))
    assert inferred.graph.node[0].op_type == "Relu"


@pytest.mark.parametrize("trusted", [False, True])
def test_refusals_are_errors(trusted: bool) -> None:
    with pytest.raises(ModelError, match="onnx refuses the model"):
        sandbox.call("validate", b"\x08\x01", trusted=trusted)


def test_one_helper_serves_all() -> None:
    pid = helper_pid()
    for _ in range(3):
        sandbox.call("infer", MODEL)
    with pytest.raises(ModelError):
        sandbox.call("validate", b"\x08\x01")
    assert helper_pid() == pid


def test_a_hang_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"took more than 1e-05 s"):
        sandbox.call("infer", MODEL, seconds=1e-5)
    assert sandbox.call("validate", MODEL) == MODEL


@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit is Linux's")
def test_too_much_memory_is_an_error() -> None:
    sandbox.call("infer", MODEL)
    large = MODEL + onnx.ModelProto(doc_string="x" * (64 << 20)).SerializeToString()
    with pytest.raises(ModelError):
        sandbox.call("infer", large, memory=1 << 20)
    assert sandbox.call("validate", MODEL) == MODEL


def test_a_crash_is_an_error() -> None:
    pid = helper_pid()
    sandbox.call("validate", MODEL)
    os.kill(pid, signal.SIGSTOP)
    errors: list[ModelError] = []

    def use() -> None:
        try:
            sandbox.call("validate", MODEL)
        except ModelError as error:
            errors.append(error)

    user = threading.Thread(target=use)
    user.start()
    time.sleep(0.1)
    os.kill(pid, signal.SIGSEGV)
    os.kill(pid, signal.SIGCONT)
    user.join(10)
    assert "crashed on this model (SIGSEGV)" in errors[0].what
    assert sandbox.call("validate", MODEL) == MODEL
    assert helper_pid() != pid


def test_a_helper_found_dead_is_replaced() -> None:
    pid = helper_pid()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert sandbox.call("validate", MODEL) == MODEL


def test_many_threads() -> None:
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(sandbox.call("validate", MODEL)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [MODEL] * 8


def test_a_forked_child_has_its_own() -> None:
    pid = helper_pid()
    script = (
        "import os; from edgec import sandbox; from tests.test_sandbox import MODEL;"
        "sandbox.call('validate', MODEL); first = sandbox._helper.pid; child = os.fork();"
        "ok = sandbox.call('validate', MODEL) == MODEL;"
        "same = sandbox._helper.pid == first;"
        "os._exit(0 if ok and not same else 1) if child == 0 else None;"
        "_, status = os.waitpid(child, 0);"
        "raise SystemExit(0 if ok and same and status == 0 else 1)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
    assert helper_pid() == pid


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_ends_with_its_parent(how: signal.Signals | None) -> None:
    script = (
        "import sys; from edgec import sandbox; sandbox.start();"
        "print(sandbox._helper.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        if how is None:
            parent.communicate()
        else:
            parent.send_signal(how)
            parent.wait()
    assert_ends(pid)


def test_helper_imports_neither_edgec_nor_tvm() -> None:
    script = (
        "import runpy, sys; runpy.run_path('edgec/native.py');"
        "assert not any(m.split('.')[0] in ('edgec', 'tvm', 'onnx_graphsurgeon')"
        " for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)
