"""Images as model input: found, decoded, resized, normalized.

Pillow decodes them; it is the optional extra `edgec[image]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgec.errors import DataError

Array = NDArray[Any]

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"})
_MAX_PIXELS = 1 << 26
"""Larger images are refused before they are decoded: a small file can claim any size."""


@dataclass(frozen=True)
class Layout:
    """Where the parts of an image lie in an input of shape [1, C, H, W] or [1, H, W, C]."""

    name: str
    channels: int
    height: int
    width: int

    @property
    def channel_axis(self) -> int:
        """1 or 3."""
        return self.name.index("C")


@dataclass(frozen=True)
class Normalization:
    """(pixel - mean) / std in units of 8-bit pixels; one value for all channels, or one each."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Array, channel_axis: int) -> Array:
        """float32, of the shape of `pixels`."""
        shape = [1] * pixels.ndim
        if len(self.mean) > 1:
            shape[channel_axis] = len(self.mean)
        mean, std = (np.asarray(v, np.float32).reshape(shape) for v in (self.mean, self.std))
        normalized: Array = (pixels.astype(np.float32) - mean) / std
        return normalized


def layout_of(shape: tuple[int, ...], where: str) -> Layout:
    """The layout of one image of 1 or 3 channels; NCHW where both fit. `DataError` for the rest."""
    if len(shape) == 4 and shape[0] == 1:
        _, a, b, c = shape
        if a in (1, 3):
            return Layout("NCHW", a, b, c)
        if c in (1, 3):
            return Layout("NHWC", c, a, b)
    raise DataError(
        f"shape {list(shape)} is not one image",
        where=where,
        hint="images fit inputs [1,C,H,W] and [1,H,W,C] with 1 or 3 channels",
    )


def find(path: Path) -> tuple[Path, ...]:
    """The image itself, or the images of a folder, by name."""
    if path.is_file():
        return (path,)
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise DataError("no images here", where=str(path), hint=", ".join(sorted(SUFFIXES)))
    return tuple(found)


def read(path: Path, layout: Layout) -> Array:
    """uint8 pixels in the shape of `layout`, upright, resized bilinearly with antialiasing.

    Channels are R, G, B, or the luma of a grey input. Raises `DataError` where the file is no image
    or Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise DataError(
            "images need Pillow", where=str(path), hint="pip install 'edgec[image]'"
        ) from error
    try:
        with Image.open(path) as file:
            if file.width * file.height > _MAX_PIXELS:
                raise DataError(
                    f"{file.width}x{file.height} is more than {_MAX_PIXELS} pixels", where=str(path)
                )
            image = ImageOps.exif_transpose(file).convert("L" if layout.channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"not a readable image: {error}", where=str(path)) from error
    resized = image.resize((layout.width, layout.height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.uint8).reshape(1, layout.height, layout.width, layout.channels)
    return pixels.transpose(0, 3, 1, 2) if layout.name == "NCHW" else pixels
