"""Commands on a machine where TVM's RPC server runs: it is given a library that runs them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.cache import Cache
from edgec.emit.toolchain import RUNTIME, Toolchain
from edgec.errors import DeviceError, UsageError
from edgec.targets import Target, resolve

_LIBRARY = "libedgec-shell.so"
_LEVELS = {40: "armv7", 62: "x86-64-v2", 183: "aarch64"}
"""The least target of a machine, by its number in ELF files."""


def shell_library(target: Target, cache: Cache) -> bytes:
    """The library for machines like `target`."""
    toolchain = Toolchain.of(target, cache.path)
    objects = [toolchain.compile(RUNTIME / "shell.c")]
    return toolchain.shared_library(objects, exports=["__tvm_ffi_edgec_shell"], soname=_LIBRARY)


@dataclass
class RpcShell:
    """A server at HOST:PORT. Files lie in the folder it keeps for this session.

    Raises:
        UsageError: that is no address.
        DeviceError: nobody answers, or not as it should.
    """

    address: str

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise UsageError(f"'{self.address}' is no HOST:PORT", hint="write rpc:127.0.0.1:9090")
        from tvm.rpc import connect

        self._session: Any
        try:
            self._session = connect(host.strip("[]"), int(port))
            self._start()
        except (OSError, RuntimeError) as error:
            raise DeviceError(
                f"cannot be reached: {str(error).strip().splitlines()[-1]}",
                where=self.name,
                hint="on the board: python -m tvm.exec.rpc_server --host 127.0.0.1 --port 9090",
            ) from error

    @property
    def name(self) -> str:
        return f"rpc:{self.address}"

    def _start(self) -> None:
        program = bytes(self._session.download("/proc/self/exe"))
        number = int.from_bytes(program[18:20], "little")
        if program[:4] != b"\x7fELF" or number not in _LEVELS:
            raise DeviceError("is a machine that edgec compiles nothing for", where=self.name)
        library = shell_library(resolve(_LEVELS[number]), Cache.default())
        self.put(_LIBRARY, library)
        self._shell = self._session.load_module(_LIBRARY)["edgec_shell"]
        self.folder = str(
            Path(self._session.get_function("tvm.rpc.server.workpath")(_LIBRARY)).parent
        )

    def put(self, name: str, data: bytes) -> None:
        """Write a file there."""
        with tempfile.TemporaryDirectory(prefix="edgec-") as folder:
            path = Path(folder) / name
            path.write_bytes(data)
            self._session.upload(str(path))

    def run(self, command: str, given: bytes) -> tuple[int, bytes, bytes]:
        """A command's exit status, and what it wrote to its standard output and error."""
        import numpy as np
        import tvm

        self.put("given", given)
        script = f"cd '{self.folder}' && {{ {command}; }} < given > said 2> errors\0"
        text = tvm.runtime.tensor(np.frombuffer(script.encode(), np.uint8), self._session.cpu())
        status = int(self._shell(text))
        return status, self._get("said"), self._get("errors")

    def _get(self, name: str) -> bytes:
        return bytes(self._session.download(name))

    def close(self) -> None:
        """Leave the server, which removes its folder."""
        self._shell = self._session = None
