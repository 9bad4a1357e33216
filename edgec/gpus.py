"""The GPUs of this machine, by its NVIDIA driver."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

from edgec.targets import Target

_MAJOR, _MINOR, _NAME_BYTES = 75, 76, 128
"""Attributes of a device, and room for its name: CUDA Driver API."""


@dataclass(frozen=True)
class Gpu:
    """A GPU: its name, its compute capability as "sm_87", the CUDA of its driver, "12.6"."""

    name: str
    arch: str
    cuda: str

    def runs(self, target: Target) -> bool:
        """Whether machine code for the GPU of `target` runs on this one."""
        mine, wanted = int(self.arch[3:]), int(target.gpu_arch[3:] or 0)
        return mine // 10 == wanted // 10 and mine >= wanted


@functools.cache
def local_gpus() -> tuple[Gpu, ...]:
    """The GPUs that the driver of this machine knows; none where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        count, version = ctypes.c_int(), ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return ()
        driver.cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return ()
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return tuple(_gpu(driver, ordinal, cuda) for ordinal in range(count.value))


def _gpu(driver: ctypes.CDLL, ordinal: int, cuda: str) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGet(ctypes.byref(device), ordinal)
    driver.cuDeviceGetName(name, _NAME_BYTES, device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return Gpu(name.value.decode(errors="replace"), f"sm_{major.value}{minor.value}", cuda)
