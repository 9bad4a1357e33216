"""A process that appends records until it is killed, fails or is done, and says what it kept.

usage: writer.py FOLDER NAME FIRST COUNT

It prints a record's number once `append` has returned; "full: MESSAGE" when a record cannot be
kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

from samples import sample

from edgec.errors import TuningError
from edgec.tune.records import Record, Store


def written(name: str, number: int) -> Record:
    """The record that the writer `name` keeps as its `number`th: it says so in several fields."""
    return sample(
        number,
        kernel=f"{name}.{number % 5}",
        machine=name,
        seed=number,
        label=f"{name} {number} " + "x" * (number % 300),
    )


def main() -> None:
    folder, name, first, count = sys.argv[1:]
    store = Store(Path(folder))
    for number in range(int(first), int(first) + int(count)):
        try:
            store.append(written(name, number))
        except TuningError as error:
            print(f"full: {error}".replace("\n", " "), flush=True)
            return
        print(number, flush=True)


if __name__ == "__main__":
    main()
