"""What a machine says of itself: files of /proc and /sys, read here, over SSH or by TVM's RPC.

Answers are by path, as bytes; those of commands stand under "!name". What a machine has not is left
out.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping

from edgec.errors import DeviceError
from edgec.rpcshell import RpcShell
from edgec.tune.boards import REACH_S, SSH

Answers = Mapping[str, bytes]

CPU = "/sys/devices/system/cpu"
_FILES = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/device-tree/model",
    "/proc/driver/nvidia/version",
    "/etc/nv_tegra_release",
    "/etc/os-release",
)
_PER_CPU = (
    "cpu_capacity",
    "cpufreq/cpuinfo_max_freq",
    *(
        f"cache/index{index}/{name}"
        for index in range(4)
        for name in ("level", "type", "size", "shared_cpu_list")
    ),
)
_COMMANDS = {
    "machine": "uname -m",
    "libc": "getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>&1 | head -n 2",
    "gpu": "nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader",
    "bits": "getconf LONG_BIT",
}


def of_this_machine() -> Answers:
    """This machine's answers; none where it is not Linux."""
    mark = secrets.token_hex(8)
    done = subprocess.run(["sh", "-c", _script(mark)], capture_output=True, timeout=REACH_S)
    return _split(done.stdout, mark)


def over_ssh(destination: str) -> Answers:
    """The answers of a machine that `ssh` reaches without a password.

    Raises:
        DeviceError: it cannot be reached.
    """
    mark = secrets.token_hex(8)
    where = f"ssh:{destination}"
    try:
        done = subprocess.run(
            [*SSH, "--", destination, _script(mark)], capture_output=True, timeout=REACH_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"cannot be reached: {error}", where=where) from error
    answers = _split(done.stdout, mark)
    if "!machine" not in answers:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise DeviceError(
            f"cannot be reached: {said[-1][:300] if said else 'it does not answer'}",
            where=where,
            hint=f"`ssh {destination} true` must work without a password",
        )
    return answers


def by_rpc(address: str) -> Answers:
    """The answers of a machine where `python -m tvm.exec.rpc_server` listens at HOST:PORT.

    Raises:
        UsageError: that is no address.
        DeviceError: nobody answers.
    """
    shell = RpcShell(address)
    try:
        return of_shell(shell)
    finally:
        shell.close()


def of_shell(shell: RpcShell) -> Answers:
    """The answers of a machine that TVM's RPC reaches."""
    mark = secrets.token_hex(8)
    answers = _split(shell.run(_script(mark), b"")[1], mark)
    if "!machine" not in answers:
        raise DeviceError("does not answer", where=shell.name)
    return answers


def _script(mark: str) -> str:
    """Shell commands that print the files and what commands say, each after a line with `mark`."""
    files = [*_FILES, *(f"{CPU}/cpu[0-9]*/{name}" for name in _PER_CPU)]
    lines = [
        f'for f in {" ".join(files)}; do [ -r "$f" ] && '
        f'{{ echo; echo "{mark} $f"; cat "$f"; }}; done 2>/dev/null'
    ]
    lines += [
        f'echo; echo "{mark} !{name}"; {{ {command}; }} 2>/dev/null'
        for name, command in _COMMANDS.items()
    ]
    return "; ".join(lines)


def _split(output: bytes, mark: str) -> Answers:
    answers = {}
    for part in (b"\n" + output).split(b"\n" + mark.encode() + b" ")[1:]:
        name, _, content = part.partition(b"\n")
        if content.strip():
            answers[name.decode(errors="replace")] = content
    return answers
