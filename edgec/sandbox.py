"""ONNX's native code in a helper process, so that a model which crashes it is an error message.

One helper serves the whole life of this process; it starts with the first model and is replaced
after a crash, a hang, a fork or a model that left it bloated. It ends when this process ends,
however that happens.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from edgec.errors import ModelError

SECONDS = 60.0
MEMORY_BYTES = 1 << 29

_lock = threading.Lock()
_helper: subprocess.Popen[bytes] | None = None
_owner = 0


def call(
    name: str,
    model: bytes,
    *args: Any,
    trusted: bool = False,
    seconds: float = SECONDS,
    memory: int | None = None,
) -> bytes:
    """`edgec.native.<name>(model, *args)`, in the helper process unless `trusted`.

    The helper gets `seconds` of wall time and `memory` bytes above what it holds (None:
    `MEMORY_BYTES` and 16 times the model). Raises ModelError when the call fails, and when it
    crashes or runs out of either.
    """
    from edgec import native

    if trusted:
        try:
            return native.CALLS[name](model, *args)
        except Exception as error:
            raise _refused(str(error)) from error
    header = {
        "call": name,
        "args": list(args),
        "seconds": seconds,
        "bytes": MEMORY_BYTES + 16 * len(model) if memory is None else memory,
    }
    with _lock:
        helper = _running()
        assert helper.stdin is not None
        assert helper.stdout is not None
        try:
            native.write_message(helper.stdin, header, model)
            reply, body = native.read_message(helper.stdout)
            if reply["bloated"]:
                _stop(helper)
        except (OSError, EOFError) as error:
            raise _died(helper, name, seconds) from error
        except BaseException:
            _stop(helper)
            raise
    if "error" in reply:
        raise _refused(reply["error"])
    return body


def start() -> None:
    """Start the helper now, so that it is ready when the first model comes."""
    with _lock:
        _running()


def _running() -> subprocess.Popen[bytes]:
    global _helper, _owner
    if _helper is None or _owner != os.getpid() or _helper.poll() is not None:
        script = Path(__file__).with_name("native.py")
        _helper = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        _owner = os.getpid()
    return _helper


def _stop(helper: subprocess.Popen[bytes]) -> None:
    global _helper
    _helper = None
    helper.kill()
    helper.wait()
    for stream in (helper.stdin, helper.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                continue


def _died(helper: subprocess.Popen[bytes], name: str, seconds: float) -> ModelError:
    code = helper.wait()
    _stop(helper)
    if hasattr(signal, "SIGALRM") and code == -signal.SIGALRM:
        return ModelError(f"ONNX's own code ({name}) took more than {seconds:g} s on this model")
    cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return ModelError(
        f"ONNX's own code ({name}) crashed on this model ({cause})",
        hint="the model is malformed in a way that onnx itself does not catch",
    )


def _refused(message: str) -> ModelError:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return ModelError(
        f"onnx refuses the model: {lines[0] if lines else 'no reason given'}",
        hint=" ".join(lines[1:])[:500],
    )


@atexit.register
def _close() -> None:
    if _helper is not None and _owner == os.getpid():
        _stop(_helper)
