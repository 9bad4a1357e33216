"""Public pretrained models, for tests and benchmarks; none of them is part of this repository.

    python models/fetch.py list
    python models/fetch.py get NAME        # prints the path of the file

A model is looked for in models/cache, then in ../shared/models, and downloaded into the cache
otherwise. Its bytes must have the SHA-256 of the table.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from files import CACHE, write_whole

SHARED = Path(__file__).resolve().parents[2] / "shared" / "models"
TIMEOUT_SECONDS = 60
MLPERF = "https://github.com/mlcommons/tiny"
ULTRAFACE = "https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB"
ULTRAFACE_FILES = (
    "https://raw.githubusercontent.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB/"
    "dffdddda9794a50607cba8f318507a28c1c27cab/models/onnx"
)
SILERO = "https://github.com/snakers4/silero-vad"
SILERO_FILES = (
    "https://raw.githubusercontent.com/snakers4/silero-vad/"
    "bfdc0193023f121ea5b3cc7b176dbed570a68a59/src/silero_vad/data"
)


class FetchError(Exception):
    """A model is not to be had, or is not the one meant."""


@dataclass(frozen=True)
class Public:
    """A published model; `url` is None where only another format of it is published."""

    origin: str
    licence: str
    size: int
    sha256: str
    url: str | None = None


MODELS = {
    "mlperf_tiny_ad_autoencoder_fp32": Public(
        MLPERF,
        "Apache-2.0",
        1067924,
        "945109531579310e6d25fef236d0a0fa3f8e37b6df14c70ba53150e15fcf4c55",
    ),
    "mlperf_tiny_ic_resnet8_fp32": Public(
        MLPERF,
        "Apache-2.0",
        321179,
        "597b0d7d63cea2f596c8ae430eff336fd431d2267da8f2acee0953f0f23ce070",
    ),
    "mlperf_tiny_kws_fp32": Public(
        MLPERF,
        "Apache-2.0",
        48823,
        "08679c310bfb9f2f2a56b6fe3505bd6f8a7043c24fa3766465218a3b8af9bf86",
    ),
    "mlperf_tiny_kws_int8_qdq": Public(
        MLPERF,
        "Apache-2.0",
        73781,
        "cf2e0ae2a0f9c7a0c5afcbe07a5f56a63c9e9123771b4640b99e3ba1f34dd105",
    ),
    "mlperf_tiny_vww_mobilenet_fp32": Public(
        MLPERF,
        "Apache-2.0",
        878706,
        "1985698b314ef648261dc4cee058929b796d8dd8d88d653ead988bd4826571d4",
    ),
    "silero_vad_16k_op15": Public(
        SILERO,
        "MIT",
        1289603,
        "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
        f"{SILERO_FILES}/silero_vad_16k_op15.onnx",
    ),
    "ultraface_rfb_320": Public(
        ULTRAFACE,
        "MIT",
        1114081,
        "faf6740b495e8b9508e6fda11e8c0368bbdde01143e8f0a3e511d0892c4d794e",
        f"{ULTRAFACE_FILES}/version-RFB-320_simplified.onnx",
    ),
    "ultraface_slim_320": Public(
        ULTRAFACE,
        "MIT",
        1047549,
        "0863d8fedffb8692c3fef345193c7befc9b513a66ac4ff87bdecf47452fa272f",
        f"{ULTRAFACE_FILES}/version-slim-320_simplified.onnx",
    ),
    "ultraface_slim_320_unsimplified": Public(
        ULTRAFACE,
        "MIT",
        1195330,
        "e9adbd0f920ddcce9368434c4d34d72520dc0c19b526fd44b4ef49bde2c3b1a8",
        f"{ULTRAFACE_FILES}/version-slim-320.onnx",
    ),
}


def find(name: str) -> Path | None:
    """The file of public model `name` on this machine, or None; a file of other bytes is none."""
    for folder in (CACHE, SHARED):
        file = folder / f"{name}.onnx"
        if file.is_file() and _fault(MODELS[name], file.read_bytes()) is None:
            return file
    return None


def get(name: str) -> Path:
    """The file of public model `name`, downloaded if it is not on this machine.

    Raises FetchError when it is not published as ONNX, cannot be reached, or has other bytes.
    """
    file = find(name)
    if file is not None:
        return file
    model = MODELS[name]
    if model.url is None:
        raise FetchError(
            f"{name}: absent, and not published as ONNX; the file of the table was converted from "
            f"the .tflite of {model.origin} with tf2onnx 1.17 at opset 17"
        )
    try:
        with urllib.request.urlopen(model.url, timeout=TIMEOUT_SECONDS) as response:
            data = response.read(model.size + 1)
    except (OSError, HTTPException) as error:
        raise FetchError(f"{name}: cannot download {model.url}: {error}") from error
    fault = _fault(model, data)
    if fault is not None:
        raise FetchError(f"{name}: {model.url} is not the model of the table: {fault}")
    file = CACHE / f"{name}.onnx"
    write_whole(file, data)
    return file


def _fault(model: Public, data: bytes) -> str | None:
    if len(data) != model.size:
        more = "more than " if len(data) > model.size else ""
        return f"{more}{min(len(data), model.size)} bytes instead of {model.size}"
    digest = hashlib.sha256(data).hexdigest()
    return None if digest == model.sha256 else f"SHA-256 {digest} instead of {model.sha256}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the models, and where each one is")
    commands.add_parser("get", help="print the path of a model").add_argument(
        "name", choices=MODELS, metavar="NAME"
    )
    arguments = parser.parse_args()
    if arguments.command == "list":
        for name, model in MODELS.items():
            place = find(name) or "absent"
            print(f"{name:32} {model.size:>8}  {model.licence:10}  {model.origin}  {place}")
        return 0
    try:
        print(get(arguments.name))
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
