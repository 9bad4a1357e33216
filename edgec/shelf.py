"""Artifacts in the cache, found by what they were made from and by the records that apply to them.

Which records apply is known once the model was lowered to kernels, so the keys of its kernels are
kept beside it: as long as what a store holds about them is the same, the artifact is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from edgec.cache import Cache, key_of
from edgec.tune.lookup import Chooser


@dataclass(frozen=True)
class Shelf:
    """The place of one artifact in `cache`: `key` stands for all that it is made from but for
    records, `chooser` looks these up."""

    cache: Cache
    key: str
    chooser: Chooser

    def find(self) -> tuple[bytes, list[str]] | None:
        """The artifact and the notes of its compilation, if it was made before."""
        known = self.cache.get("kernels", self.key)
        if known is None:
            return None
        for space, target, kernels in json.loads(known):
            self.chooser.choose(kernels, space, target)
        data = self.cache.get("artifact", self._whole_key())
        notes = self.cache.get("notes", self._whole_key())
        return None if data is None else (data, json.loads(notes or b"[]"))

    def keep(self, data: bytes, notes: list[str]) -> None:
        """Store the artifact, which was made by what the chooser chose."""
        kernels = [[*place, sorted(known)] for place, known in sorted(self.chooser.chosen.items())]
        self.cache.put("artifact", self._whole_key(), data)
        self.cache.put("notes", self._whole_key(), json.dumps(notes).encode())
        self.cache.put("kernels", self.key, json.dumps(kernels).encode())

    def _whole_key(self) -> str:
        content = self.chooser.content()
        return key_of(self.key, *content) if content else self.key
