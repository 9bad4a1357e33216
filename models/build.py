"""The model zoo: well-known architectures with random weights, built on demand.

    python models/build.py list
    python models/build.py NAME [-o FILE]        # default: models/cache/NAME.onnx

Equal bytes on every build. `path(name)` is the same for tests and benchmarks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import onnx

from files import CACHE, write_whole
from nets import imagenet, recurrent, tiny, transformers

BUILDERS = Path(__file__).parent / "nets"

ZOO: dict[str, Callable[[], onnx.ModelProto]] = {
    "mobilenet_v2": imagenet.mobilenet_v2,
    "resnet18": imagenet.resnet18,
    "squeezenet": imagenet.squeezenet,
    "ds_cnn": tiny.ds_cnn,
    "mobilenet_v1": tiny.mobilenet_v1,
    "resnet8": tiny.resnet8,
    "autoencoder": tiny.autoencoder,
    "unet": tiny.unet,
    "bert_tiny": transformers.bert_tiny,
    "encoder": transformers.encoder,
    "gru_keyword": recurrent.gru_keyword,
    "lstm_keyword": recurrent.lstm_keyword,
}


def path(name: str) -> Path:
    """The file of zoo model `name` in the cache, built if absent or older than its builder."""
    file = CACHE / f"{name}.onnx"
    changed = max(source.stat().st_mtime for source in BUILDERS.glob("*.py"))
    if not file.exists() or file.stat().st_mtime < changed:
        write(name, file)
    return file


def write(name: str, file: Path) -> None:
    """Build zoo model `name` into `file`."""
    write_whole(file, ZOO[name]().SerializeToString(deterministic=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=["list", *ZOO], help="a model of the zoo")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.name == "list":
        for name, builder in ZOO.items():
            print(f"{name:14} {(builder.__doc__ or '').partition(chr(10))[0]}")
        return
    file = arguments.output or CACHE / f"{arguments.name}.onnx"
    write(arguments.name, file)
    print(file)


if __name__ == "__main__":
    main()
