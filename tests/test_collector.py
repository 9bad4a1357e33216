import gc
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from edgec.collector import frozen, paused


def fail_inside(manager: Callable[[], AbstractContextManager[None]]) -> None:
    """Raise an error that says whether the collector is on, and how much is frozen."""
    with manager():
        state = gc.isenabled(), gc.get_freeze_count()
        raise KeyError(state)


def test_paused_until_the_end_even_of_an_error() -> None:
    with pytest.raises(KeyError) as error:
        fail_inside(paused)
    assert error.value.args[0][0] is False
    assert gc.isenabled()


def test_paused_leaves_a_collector_off_that_was_off() -> None:
    gc.disable()
    try:
        with paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_frozen_until_the_end_even_of_an_error() -> None:
    with pytest.raises(KeyError) as error:
        fail_inside(frozen)
    assert error.value.args[0][1] > 0
    assert gc.get_freeze_count() == 0


def test_what_another_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        with frozen():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
