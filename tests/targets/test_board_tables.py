"""Boards as data: what edgec's tables say, and boards that users describe."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Edgec

from edgec import targets

BOARDS = [
    name
    for name in targets.names()
    if name != "host" and targets.resolve(name).level and not name.startswith("cuda")
]


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_says_what_its_vendor_does(name: str) -> None:
    board = targets.resolve(name)
    assert board.cores
    assert board.ram_mib == tuple(sorted(board.ram_mib))
    assert board.l1_bytes < board.l2_bytes
    assert not board.l3_bytes or board.l3_bytes > board.l2_bytes
    assert bool(board.gpu_arch) == bool(board.jetpack) == bool(board.cuda) == bool(board.gpu)


@pytest.mark.parametrize(
    ("name", "libc"),
    [
        ("jetson-xavier", "glibc 2.31"),
        ("jetson-orin-nano", "glibc 2.35"),
        ("jetson-agx-orin", "glibc 2.35"),
        ("rpi4", "glibc 2.17"),
        ("armv7", "glibc 2.17"),
    ],
)
def test_the_floor_is_the_libc_of_the_board_s_system(name: str, libc: str) -> None:
    assert targets.resolve(name).libc == libc


@pytest.mark.parametrize("name", [name for name in targets.names() if name != "host"])
def test_the_manifest_holds_all_of_a_target(name: str) -> None:
    target = targets.resolve(name)
    assert targets.from_facts(target.facts()) == target


def test_an_alias_is_a_name_and_not_a_target(edgec: Edgec) -> None:
    assert targets.resolve("jetson").name == "jetson-orin-nano"
    assert "Orin Nano" in edgec("targets", "jetson").out
    board, meaning = targets.aliases()["jetson"]
    assert board == "jetson-orin-nano"
    assert "JetPack 6" in meaning


@pytest.mark.parametrize(
    ("wrong", "near"), [("rpi6", "rpi5"), ("jetson-nano-orin", "jetson-orin-nano"), ("n10", "n100")]
)
def test_unknown_names_get_the_nearest(edgec: Edgec, wrong: str, near: str) -> None:
    done = edgec("targets", wrong)
    assert done.code == 4
    assert near in done.err


OWN = """\
# the camera's board
[camera-7]
level = "aarch64"
mcpu = "cortex-a55"
features = ["+dotprod"]
cpu_flags = ["asimddp"]
l1_bytes = 32_768
cores = { cortex-a55 = 2 }
libc = "glibc 2.28"
qemu_cpu = "cortex-a76"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "board.toml"
    path.write_text(text)
    return path


def test_a_board_of_one_s_own(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    """Its artifact is complete: what is linked from it later needs the file no more."""
    board, artifact = write(tmp_path, OWN), tmp_path / "x.edgec"
    target = targets.resolve(str(board))
    assert (target.name, target.mcpu, target.libc) == ("camera-7", "cortex-a55", "glibc 2.28")
    assert target.cpu_flags == ("fp", "asimd", "asimddp")
    done = edgec("compile", digits, "--target", board, "-o", artifact, "--json")
    [variant] = done.result["variants"]
    assert variant["id"] == "camera-7"
    board.unlink()
    assert edgec("export", artifact, tmp_path / "out").code == 0


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (OWN.replace("= 32_768", "= 32k"), 7, "not TOML"),
        (OWN.replace("l1_bytes", "l1_byte"), 7, "l1_byte"),
        (OWN.replace("32_768", '"32 KiB"'), 7, "positive whole number"),
        (OWN.replace("32_768", "0"), 7, "positive whole number"),
        (OWN.replace("32_768", "true"), 7, "positive whole number"),
        (OWN.replace('"aarch64"', '"aarch65"'), 3, "did you mean aarch64"),
        (OWN.replace('"aarch64"', '"jetson"'), 3, "no level or board 'jetson'"),
        (OWN.replace('level = "aarch64"\n', ""), 2, "names no level"),
        (OWN.replace('"aarch64"', '"aarch64+dotprd"'), 3, "no feature 'dotprd'"),
        (OWN.replace('"+dotprod"', '"dotprod"'), 5, "with a sign"),
        (OWN.replace('["asimddp"]', '"asimddp"'), 6, "a list of features"),
        (OWN.replace("glibc 2.28", "uclibc"), 9, '"glibc 2.28", "musl"'),
        (OWN.replace("{ cortex-a55 = 2 }", "2"), 8, "cores by their number"),
        (OWN.replace("[camera-7]", "[rpi4]"), 2, "edgec's own"),
        (OWN.replace("[camera-7]", '["../x"]'), 2, "cannot be a name"),
        (OWN + "[another]\n", 11, "has 2 tables"),
        ("level = 1\n" + OWN, 1, "outside of a table"),
        ("", 1, "has no table"),
    ],
)
def test_mistakes_are_found_where_they_are(
    edgec: Edgec, tmp_path: Path, text: str, line: int, says: str
) -> None:
    path = write(tmp_path, text)
    done = edgec("targets", path)
    assert done.code == 4
    assert f"{path}:{line}: " in done.err
    assert says in done.err


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("qemu_cpu", "cortex-zz", "qemu-aarch64 emulates no 'cortex-zz'"),
        ("gpu_arch", "sm_999", "does not know sm_999"),
    ],
)
def test_what_other_tools_do_not_know_is_no_fault_of_edgec(
    edgec: Edgec, digits: Path, tmp_path: Path, key: str, value: str, says: str
) -> None:
    board = write(tmp_path, f'[mine]\nlevel = "aarch64"\ncuda = "12.6"\n{key} = "{value}"\n')
    done = edgec("compile", digits, "--target", board, "-o", tmp_path / "x.edgec")
    assert done.code == 4
    assert says in done.err
    assert "target 'mine'" in done.err


@pytest.mark.parametrize("data", [b"\xff\xfe", b"#" * (2 << 20)])
def test_files_that_are_no_boards(edgec: Edgec, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "board.toml"
    assert edgec("targets", path).code == 4
    path.write_bytes(data)
    assert edgec("targets", path).code == 4
