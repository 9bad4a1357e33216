"""The errors of edgec: one tree, one exit code each.

An error says what is wrong, where (a node and its op, a file, an option) and what to do about it.
Code that calls edgec as a library catches `EdgecError`; the command line prints its three parts and
exits with `exit_code`.
"""

from __future__ import annotations

from typing import ClassVar


class EdgecError(Exception):
    """Base of every error edgec raises on purpose.

    `what` is the fault in one sentence, `where` the place it was found ("node 'c1' (Conv)", a path,
    an option), `hint` what the user can do. `where` and `hint` may be empty.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "internal"

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  {self.hint}" if self.hint else text


class UsageError(EdgecError):
    """The command line or a library call asks for something that does not exist or fit."""

    exit_code = 2
    kind = "usage"


class ModelError(EdgecError):
    """The model is not ONNX, is invalid, or lacks a shape edgec needs."""

    exit_code = 3
    kind = "model"


class TargetError(EdgecError):
    """The target is unknown, or its toolchain is missing."""

    exit_code = 4
    kind = "target"


class PassError(EdgecError):
    """A rewrite pass broke the graph or one of its own rules."""

    exit_code = 5
    kind = "pass"


class LoweringError(EdgecError):
    """Nodes that cannot be lowered, or a kernel that did not build."""

    exit_code = 6
    kind = "lowering"


class VerifyError(EdgecError):
    """The compiled module computes something else than the model."""

    exit_code = 7
    kind = "verification"


class BudgetError(EdgecError):
    """A limit that the user set cannot be kept."""

    exit_code = 8
    kind = "budget"


class ArtifactError(EdgecError):
    """An artifact is damaged, foreign, or made for another machine or version."""

    exit_code = 9
    kind = "artifact"


class DeviceError(EdgecError):
    """A device cannot be reached or fails while running."""

    exit_code = 10
    kind = "device"


class TuningError(EdgecError):
    """Tuning found no valid candidate, or its records cannot be kept."""

    exit_code = 11
    kind = "tuning"


class DataError(EdgecError):
    """Input data is missing or has the wrong name, shape or dtype."""

    exit_code = 12
    kind = "data"


EXIT_INTERRUPTED = 130
