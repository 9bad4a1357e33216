"""A convolution and the depthwise convolution it feeds, as one kernel.

Expanded images are the largest of a mobile network, and only the next depthwise convolution reads
them. In one kernel, a thread takes the second a few rows and channels at a time, and computes what
it needs of the first just before, in its own cache.
"""

from __future__ import annotations

from math import prod

from tvm import s_tir, tirx

from edgec.lower.joined import blocks_of

LEAST_ELEMENTS = 128 << 10
"""Of smaller images the rows that two bands read, computed twice, cost more than what is gained."""


_DEPTHWISE = ("depthwise_blocked", "depthwise_quads")


def feeds_depthwise(first: tirx.PrimFunc, second: tirx.PrimFunc, place: int) -> bool:
    """Whether `second` is a depthwise convolution of a large image, its parameter `place`, that
    `first` computes from few of its own inputs; both with a tail, in blocked form."""
    image = second.params[place]
    if prod(map(int, image.shape)) < LEAST_ELEMENTS:
        return False
    producer, consumer = blocks_of(first), blocks_of(second)
    convs = [block for block in producer if block.name_hint == "conv2d_blocked"]
    names = [block.name_hint for block in consumer]
    depthwise = names[1:] if names[0] == "pad" else names
    return (
        len(convs) == 1
        and _reads_little(convs[0])
        and not producer[-1].same_as(convs[0])
        and len(depthwise) > 1
        and depthwise[0] in _DEPTHWISE
        and consumer[0].reads[0].source.same_as(image)
    )


def _reads_little(conv: s_tir.SBlock) -> bool:
    """Whether its window is one pixel, or its input plain: then no row of the input has to be
    copied with its border."""
    extents = [int(var.dom.extent) for var in conv.iter_vars]
    return len(extents) == 8 or extents[6:8] == [1, 1]
