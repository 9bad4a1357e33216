"""What raises while TVM builds: it is to come out as it is, and TVM to stay silent.

What the handler of a signal raises in a Python function that TVM's C++ called comes out of TVM as a
RuntimeError, and a builder that is destroyed with an open block complains on stderr.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tvm import relax

_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGINT and SIGTERM that come inside are handled at its end, as they were to be before, where
    a function of Python handles them.

    Only the main thread handles signals: in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    found = {number: signal.getsignal(number) for number in _ENDING}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def block_ended(builder: relax.BlockBuilder) -> Iterator[None]:
    """Ends the block of the function that `builder` is at, should something be raised inside."""
    try:
        yield
    except BaseException:
        builder._end_block()
        raise
