"""The cache: found again, whole or not at all, shared between processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import Edgec

from edgec.cache import Cache, key_of, tool_digest


def entry(cache: Cache) -> Path:
    [file] = [path for path in cache.path.rglob("*") if path.is_file()]
    return file


def test_what_was_put_is_found(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new" / "folder")
    key = key_of("a", 1)
    assert cache.get("kernel", key) is None
    cache.put("kernel", key, b"object")
    assert cache.get("kernel", key) == b"object"
    assert cache.get("artifact", key) is None
    cache.put("kernel", key, b"another")
    assert cache.get("kernel", key) == b"another"


@pytest.mark.parametrize(
    "spoil", [lambda d: d[:-1], lambda d: b"", lambda d: d[:40] + b"!" + d[41:]]
)
def test_damaged_entries_are_not_there(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    cache = Cache(tmp_path)
    cache.put("kernel", key_of("k"), b"object code")
    file = entry(cache)
    file.write_bytes(spoil(file.read_bytes()))
    assert cache.get("kernel", key_of("k")) is None


def test_nothing_is_found_without_reuse(tmp_path: Path) -> None:
    cache = Cache(tmp_path, reuse=False)
    cache.put("kernel", key_of("k"), b"object")
    assert cache.get("kernel", key_of("k")) is None
    assert Cache(tmp_path).get("kernel", key_of("k")) == b"object"


def test_keys_tell_parts_apart() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("1") != key_of(1)
    assert key_of(b"x") == key_of(b"x")
    assert len(tool_digest()) == 64
    assert tool_digest() != tool_digest("lower", "targets") != tool_digest("lower")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "cache")
    cache.put("kernel", key_of("k"), b"object")
    assert cache.get("kernel", key_of("k")) is None
    assert cache.info().entries == {}


def test_many_writers(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    contents = [bytes([n]) * 100_000 for n in range(16)]
    with ThreadPoolExecutor(8) as pool:
        for content in contents:
            pool.submit(cache.put, "kernel", key_of("k"), content)
        for _ in range(200):
            found = cache.get("kernel", key_of("k"))
            assert found is None or found in contents
    assert cache.get("kernel", key_of("k")) in contents
    assert entry(cache).parent.name == key_of("k")[:2], "no temporary file is left"


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EDGEC_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert Cache.default().path == tmp_path / ".cache" / "edgec"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert Cache.default().path == Path("/xdg/edgec")
    monkeypatch.setenv("EDGEC_CACHE_DIR", "/chosen")
    assert Cache.default().path == Path("/chosen")


def test_info_and_clear(edgec: Edgec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE_DIR", str(tmp_path))
    cache = Cache(tmp_path)
    cache.put("kernel", key_of(1), bytes(1000))
    cache.put("kernel", key_of(2), bytes(1000))
    facts = edgec("cache", "info", "--json").result
    assert facts["path"] == str(tmp_path)
    assert facts["entries"] == {"kernel": 2}
    assert facts["bytes"] == {"kernel": 2064}
    assert edgec("cache", "clear").code == 0
    assert list(tmp_path.iterdir()) == []
    assert "empty" in edgec("cache", "info").out


def test_a_model_compiled_before(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    """Found whatever its folder; built anew where asked for; other weights are another model."""
    import onnx

    words = ["-o", tmp_path / "x.edgec", "--json"]
    first = edgec("compile", digits, *words).result
    copy = tmp_path / digits.name
    copy.write_bytes(digits.read_bytes())
    second = edgec("compile", copy, *words).result
    assert second["cached"]
    assert second["bytes"] == first["bytes"]
    assert not edgec("compile", copy, "--no-cache", *words).result["cached"]
    model = onnx.load(digits)
    weights = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weights) * 2
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(model, copy)
    assert not edgec("compile", copy, *words).result["cached"]


def test_external_data_counts(edgec: Edgec, digits: Path, tmp_path: Path) -> None:
    """A model whose file stays the same and whose weights change is another model."""
    import onnx

    path = tmp_path / "m.onnx"
    stored = {"save_as_external_data": True, "location": "m.bin", "size_threshold": 0}
    onnx.save(onnx.load(digits), path, **stored)
    words = ["compile", path, "-o", tmp_path / "x.edgec", "--json"]
    edgec(*words)
    assert edgec(*words).result["cached"]
    weights = tmp_path / "m.bin"
    data = bytearray(weights.read_bytes())
    data[3] ^= 0x01
    weights.write_bytes(data)
    assert not edgec(*words).result["cached"]
    os.unlink(weights)
    assert edgec(*words).code == 3


def test_counting_while_others_delete(tmp_path: Path) -> None:
    """Files that come and go, as a linker's do, are no error; those that stay are all counted."""
    cache = Cache(tmp_path)
    cache.put("kernel", key_of("k"), b"object")
    folder, over = cache.folder("zig"), threading.Event()

    def busy() -> None:
        while not over.is_set():
            for number in range(50):
                (folder / str(number)).write_bytes(b"temporary")
            for number in range(50):
                (folder / str(number)).unlink()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(busy)
        try:
            counted = [cache.info() for _ in range(200)]
        finally:
            over.set()
    assert {each.entries["kernel"] for each in counted} == {1}
    assert {each.nbytes["kernel"] for each in counted} == {32 + len(b"object")}
