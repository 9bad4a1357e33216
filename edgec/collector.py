"""Python's cyclic garbage collector, kept from walking a whole graph again and again.

A graph of 20,000 nodes is a million objects that refer to each other. The collector visits all of
them whenever a quarter as many are new, which is half of the time of loading and rewriting.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """No collection meanwhile: for code that builds much and leaves no garbage."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@contextmanager
def frozen() -> Iterator[None]:
    """What exists now is not visited meanwhile; what is made meanwhile is collected as always.

    Nothing changes where something is frozen already: only all of it could be freed again.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
