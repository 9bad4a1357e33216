"""Public models are found, downloaded and checked; nothing wrong is ever kept."""

from __future__ import annotations

import hashlib
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import fetch

DATA = b"a model, as far as this test goes" * 100
NAME = "made_up"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of a server on this machine that has `DATA` at /made_up.onnx."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "made_up.onnx").write_bytes(DATA)
    handler = partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fetch.Public:
    """A model without an address, the only one of the table; cache and shared folder are empty."""
    public = fetch.Public("https://example.org", "MIT", len(DATA), hashlib.sha256(DATA).hexdigest())
    monkeypatch.setattr(fetch, "MODELS", {NAME: public})
    for folder in ("CACHE", "SHARED"):
        monkeypatch.setattr(fetch, folder, tmp_path / folder.lower())
        (tmp_path / folder.lower()).mkdir()
    return public


def place(folder: Path, data: bytes = DATA) -> Path:
    file = folder / f"{NAME}.onnx"
    file.write_bytes(data)
    return file


@pytest.mark.usefixtures("model")
def test_cache_comes_before_the_shared_folder() -> None:
    assert fetch.find(NAME) is None
    shared = place(fetch.SHARED)
    assert fetch.get(NAME) == shared
    cached = place(fetch.CACHE)
    assert fetch.get(NAME) == cached


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", DATA.swapcase()])
def test_file_of_other_bytes_is_passed_over(data: bytes) -> None:
    place(fetch.CACHE, data)
    assert fetch.find(NAME) is None
    shared = place(fetch.SHARED)
    assert fetch.find(NAME) == shared


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_download_is_checked_and_kept(
    scheme: str, model: fetch.Public, site: str, tmp_path: Path
) -> None:
    place(fetch.CACHE, b"damaged")
    address = site if scheme == "http" else (tmp_path / "site").as_uri()
    fetch.MODELS[NAME] = replace(model, url=f"{address}/made_up.onnx")
    file = fetch.get(NAME)
    assert file == fetch.CACHE / "made_up.onnx"
    assert file.read_bytes() == DATA
    assert list(fetch.CACHE.iterdir()) == [file]
    fetch.MODELS[NAME] = replace(model, url="http://127.0.0.1:1/nobody-listens")
    assert fetch.get(NAME) == file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"size": len(DATA) - 1}, "more than 3299 bytes instead of 3299"),
        ({"size": len(DATA) + 1}, "3300 bytes instead of 3301"),
        ({"url": "/absent.onnx"}, "404"),
    ],
)
def test_wrong_download_is_an_error_and_leaves_nothing(
    change: dict[str, object], message: str, model: fetch.Public, site: str
) -> None:
    url = site + str(change.pop("url", "/made_up.onnx"))
    fetch.MODELS[NAME] = replace(model, url=url, **change)
    with pytest.raises(fetch.FetchError, match=message):
        fetch.get(NAME)
    assert list(fetch.CACHE.iterdir()) == []


def test_unreachable_server_is_an_error_that_names_the_address(model: fetch.Public) -> None:
    fetch.MODELS[NAME] = replace(model, url="http://127.0.0.1:1/made_up.onnx")
    with pytest.raises(fetch.FetchError, match=r"cannot download http://127\.0\.0\.1:1/made_up"):
        fetch.get(NAME)


@pytest.mark.usefixtures("model")
def test_model_not_published_as_onnx_says_how_it_was_made() -> None:
    with pytest.raises(fetch.FetchError, match="tf2onnx"):
        fetch.get(NAME)


def test_command_line_shows_absent_models_as_absent(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "models"
    folder.mkdir(parents=True)
    for source in ("fetch.py", "files.py"):
        shutil.copy(Path(fetch.__file__).with_name(source), folder)
    command = [sys.executable, folder / "fetch.py"]
    listed = subprocess.run([*command, "list"], check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in listed.splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [(name, "absent") for name in fetch.MODELS]
    absent = subprocess.run(
        [*command, "get", "mlperf_tiny_kws_fp32"], capture_output=True, text=True
    )
    assert absent.returncode == 1
    assert "absent" in absent.stderr
    assert "Traceback" not in absent.stderr


@pytest.mark.skipif(not fetch.SHARED.is_dir(), reason="../shared/models is absent")
def test_every_shared_model_is_in_the_table_and_has_its_bytes() -> None:
    for file in fetch.SHARED.glob("*.onnx"):
        assert file.stem in fetch.MODELS
        data = file.read_bytes()
        assert hashlib.sha256(data).hexdigest() == fetch.MODELS[file.stem].sha256
        assert len(data) == fetch.MODELS[file.stem].size


def test_every_row_is_complete() -> None:
    for name, public in fetch.MODELS.items():
        assert len(public.sha256) == 64, name
        assert public.origin.startswith("https://"), name
        assert public.url is None or public.url.endswith(".onnx"), name
