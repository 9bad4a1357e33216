"""Inputs from files, images and generators, and what is refused."""

from __future__ import annotations

import random
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import parser

from edgec.arrays import load_npz, save_npy, save_npz
from edgec.data import index_limits, open_data
from edgec.errors import DataError, UsageError
from edgec.program import Tensor

X = Tensor("x", "float32", (1, 3))
PAIR = Tensor("pair", "float32", (2, 3))
PIXELS = Tensor("image", "float32", (1, 3, 4, 6))


def saved(path: Path, array: NDArray) -> str:
    np.save(path, array)
    return str(path)


def test_random_depends_on_seed_and_name_only() -> None:
    both = [X, Tensor("y", "float32", (1, 3))]
    first, second = open_data(both, ["random"], count=2, seed=7)
    again, _ = open_data(both, ["random"], count=2, seed=7)
    (other,) = open_data(both, ["random"], seed=8)
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], second["x"])
    assert not np.array_equal(first["x"], first["y"])
    assert not np.array_equal(first["x"], other["x"])


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("bool", False, True),
        ("int8", -128, 127),
        ("uint8", 0, 255),
        ("int64", 0, 1),
        ("int32", 0, 1),
        ("int4", -8, 7),
    ],
)
def test_random_integers_fill_their_documented_range(dtype: str, low: int, high: int) -> None:
    (sample,) = open_data([Tensor("x", dtype, (1, 20_000))], ["random"])
    assert sample["x"].dtype.name == dtype
    values = sample["x"].astype(np.int64)
    assert (values.min(), values.max()) == (low, high)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
def test_random_floats_are_standard_normal(dtype: str) -> None:
    (sample,) = open_data([Tensor("x", dtype, (1, 20_000))], ["random"])
    values = sample["x"].astype(np.complex64 if dtype == "complex64" else np.float32).real
    assert sample["x"].dtype.name == dtype
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05


def test_random_ids_stay_inside_the_table_they_index() -> None:
    model = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        m (int64[1,N] ids, int64[1,N] mask) => (float[1,N,2] y)
        <float[3,2] table = {0, 1, 2, 3, 4, 5}>
        { wide = Cast <to = 7> (ids)  e = Gather (table, wide)
          f = Cast <to = 1> (mask)  a = Constant <value_ints = [2]> ()
          g = Unsqueeze (f, a)  y = Mul (e, g) }
    """)
    limits = index_limits(model)
    assert limits == {"ids": 3}
    specs = [Tensor("ids", "int64", (1, 5000)), Tensor("mask", "int64", (1, 5000))]
    (sample,) = open_data(specs, ["random"], limits=limits)
    assert (sample["ids"].min(), sample["ids"].max()) == (0, 2)
    assert sample["mask"].max() == 1


def test_zeros() -> None:
    (sample,) = open_data([X, Tensor("ids", "int64", ())], ["zeros"])
    assert sample["x"].dtype == np.float32
    assert not sample["x"].any()
    assert sample["ids"].shape == ()


@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 3)])
def test_batch_of_one_is_stacked_on_its_batch_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.arange(12, dtype=np.float32).reshape(shape)
    data = open_data([X], [f"x={saved(tmp_path / 'x.npy', array)}"])
    assert len(data) == 4
    assert np.array_equal(np.concatenate([s["x"] for s in data]), array.reshape(4, 3))
    assert np.array_equal(np.concatenate([s["x"] for s in data]), array.reshape(4, 3))


@pytest.mark.parametrize(("shape", "count"), [((2, 3), 1), ((5, 2, 3), 5)])
def test_other_batches_are_stacked_on_a_further_axis(shape: tuple[int, ...], count: int) -> None:
    array = np.random.default_rng(0).random(shape, np.float32)
    samples = list(open_data([PAIR], {"pair": array}))
    assert len(samples) == count
    assert np.array_equal(np.stack([s["pair"] for s in samples]), array.reshape(count, 2, 3))


def test_one_sample_without_its_batch_axis() -> None:
    (sample,) = open_data([X], {"x": np.float32([1, 2, 3])})
    assert sample["x"].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_by_input_name(tmp_path: Path, compressed: bool) -> None:
    x = np.random.default_rng(0).random((6, 3), np.float32)
    pair = np.random.default_rng(1).random((6, 2, 3), np.float32)
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "data.npz", x=x, pair=pair)
    samples = list(open_data([X, PAIR], [str(tmp_path / "data.npz")]))
    assert len(samples) == 6
    assert np.array_equal(samples[4]["x"][0], x[4])
    assert np.array_equal(samples[4]["pair"], pair[4])


def test_fortran_and_big_endian_arrays_keep_their_values(tmp_path: Path) -> None:
    array = np.arange(24, dtype=">f4").reshape(4, 2, 3)
    path = saved(tmp_path / "pair.npy", np.asfortranarray(array))
    samples = list(open_data([PAIR], [f"pair={path}"]))
    assert samples[0]["pair"].dtype == np.dtype("float32")
    assert np.array_equal(np.stack([s["pair"] for s in samples]), array)


def test_bfloat16_survives_npy(tmp_path: Path) -> None:
    spec = Tensor("x", "bfloat16", (1, 3))
    (sample,) = open_data([spec], ["random"])
    (read,) = open_data([spec], [saved(tmp_path / "x.npy", sample["x"])])
    assert np.array_equal(read["x"], sample["x"])


def test_sources_combine_and_random_fills_the_rest(tmp_path: Path) -> None:
    array = np.ones((2, 3), np.float32)
    data = open_data([X, PAIR], ["random", f"x={saved(tmp_path / 'x.npy', array)}"])
    assert [s["x"].tolist() for s in data] == [[[1, 1, 1]]] * 2
    assert all(s["pair"].std() > 0 for s in data)


def test_input_names_may_hold_an_equals_sign(tmp_path: Path) -> None:
    spec = Tensor("a=b", "float32", (1, 3))
    path = saved(tmp_path / "x.npy", np.ones((1, 3), np.float32))
    (sample,) = open_data([spec], [f"a=b={path}"])
    assert sample["a=b"].all()


def test_save_npz_takes_any_name(tmp_path: Path) -> None:
    arrays = {"file": np.arange(3), "../a/b": np.ones((2, 2), np.float32), "": np.zeros(())}
    save_npz(tmp_path / "a.npz", arrays)
    assert {k: v.tolist() for k, v in load_npz(tmp_path / "a.npz").items()} == {
        k: v.tolist() for k, v in arrays.items()
    }


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    array = np.arange(3)
    save_npy(tmp_path / "a.npy", array)
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="cannot be written"):
        save_npy(tmp_path / "absent" / "a.npy", array)
    with pytest.raises(DataError, match="cannot be written"):
        save_npz(tmp_path / "absent" / "a.npz", {"x": array})


def test_non_finite_values_are_reported_once() -> None:
    x = np.float32([[1, np.nan, np.inf], [np.nan, 0, 0]])
    notes: list[str] = []
    samples = list(open_data([X], {"x": x}, note=notes.append))
    assert len(samples) == 2
    assert notes == ["input 'x', sample 0: 1 NaN and 1 infinite of 3 values"]


class Exploding:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("unpickled",))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([Exploding()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([Exploding()], dtype=object))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match="Python objects"):
            open_data([X], [str(tmp_path / name)])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4), np.float32), r"shape \[2, 4\] does not fit input 'x' \[1, 3\]"),
        (np.zeros((2, 3), np.float64), "dtype float64 does not fit input 'x' float32"),
        (np.zeros((2, 3), np.uint8), "dtype uint8 does not fit"),
        (np.zeros((0, 3), np.float32), "no samples"),
    ],
)
def test_shape_and_dtype_are_checked(tmp_path: Path, array: NDArray, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_data([X], [saved(tmp_path / "x.npy", array)])
    assert "x.npy" in caught.value.where
    assert caught.value.exit_code == 12


def test_a_file_cut_short_is_an_error(tmp_path: Path) -> None:
    path = Path(saved(tmp_path / "x.npy", np.zeros((9, 3), np.float32)))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="ends early"):
        open_data([X], [str(path)])


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = Path(saved(tmp_path / "x.npy", np.zeros((9, 3), np.float32)))
    data = open_data([X], [str(path)])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match="ends early"):
        list(data)


def test_a_header_that_claims_too_much_allocates_nothing(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (900000000000, 3)}\n"
    blob = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "x.npy").write_bytes(blob)
    with pytest.raises(DataError, match="ends early"):
        open_data([X], [str(tmp_path / "x.npy")])


@pytest.mark.parametrize("shape", ["(-4, 3)", "(4, 3", "4"])
def test_a_damaged_header_is_an_error(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    blob = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "x.npy").write_bytes(blob + bytes(48))
    with pytest.raises(DataError) as caught:
        list(open_data([X], [str(tmp_path / "x.npy")]))
    assert "x.npy" in caught.value.where


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "packed.npz"])
def test_mutated_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    if name == "x.npy":
        np.save(path, x)
    else:
        (np.savez if name == "x.npz" else np.savez_compressed)(path, x=x)
    original = path.read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(original)
        for _ in range(chance.choice((1, 2, 8))):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged[: chance.choice((len(damaged), chance.randrange(len(damaged))))])
        try:
            samples = list(open_data([X], [str(path)]))
        except DataError:
            refused += 1
        else:
            assert all(sample["x"].shape == (1, 3) for sample in samples)
    assert refused > 100


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.png"])
def test_foreign_bytes_are_refused(tmp_path: Path, name: str) -> None:
    pytest.importorskip("PIL")
    (tmp_path / name).write_bytes(b"not what the name says")
    with pytest.raises(DataError, match=r"cannot be read|not a readable"):
        list(open_data([PIXELS], [str(tmp_path / name)]))


def test_a_foreign_member_of_an_npz_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match=r"not a \.npy member"):
        open_data([X], [str(tmp_path / "x.npz")])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["z=random"], "no input 'z'"),
        (["x=random"], r"no data for 'pair' float32\[2, 3\]"),
        ([], "no data for 'x'"),
        (["random", "x=zeros", "x=random"], "given twice"),
        (["random", "x=absent.npy"], "no such file"),
        (["random", "x=absent.png"], "no such file"),
        (["random", "x=photos"], "no such file or folder"),
        (["random", f"x={__file__}"], "no data of a known kind"),
        (["photo.npy"], "which input"),
        (["absent.npz"], "not a readable"),
    ],
)
def test_sources_that_do_not_fit(sources: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data([X, PAIR], sources)


def test_numbers_of_samples_must_agree() -> None:
    arrays = {"x": np.zeros((2, 3), np.float32), "pair": np.zeros((3, 2, 3), np.float32)}
    with pytest.raises(DataError, match=r"x: 2, pair: 3"):
        open_data([X, PAIR], arrays)


def test_strings_cannot_be_generated() -> None:
    with pytest.raises(DataError, match="string"):
        list(open_data([Tensor("s", "string", (1,))], ["random"]))


def write_image(path: Path, pixels: NDArray) -> None:
    pil = pytest.importorskip("PIL.Image")
    pil.fromarray(pixels).save(path)


def test_folder_of_images_is_read_in_order_resized_and_said(tmp_path: Path) -> None:
    left_red = np.zeros((8, 12, 3), np.uint8)
    left_red[:, :6, 0] = 200
    write_image(tmp_path / "b.png", left_red)
    write_image(tmp_path / "a.png", np.full((4, 6, 3), 7, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    notes: list[str] = []
    data = open_data([PIXELS], [f"image={tmp_path}"], note=notes.append)
    flat, red = data
    assert "2 images resized bilinearly to 6x4, NCHW" in notes[0]
    assert flat["image"].shape == (1, 3, 4, 6)
    assert flat["image"].dtype == np.float32
    assert (flat["image"] == 7).all()
    assert red["image"][0, 0, 2].tolist()[::5] == [200, 0]
    assert red["image"][0, 1:].max() == 0


def test_images_to_nhwc_grey_bytes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((4, 6, 3), 9, np.uint8))
    spec = Tensor("image", "uint8", (1, 4, 6, 1))
    (sample,) = open_data([spec], [str(tmp_path)])
    assert sample["image"].shape == (1, 4, 6, 1)
    assert (sample["image"] == 9).all()


def test_normalize_one_value_or_one_per_channel(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.full((4, 6, 3), (10, 20, 30), np.uint8))
    (one,) = open_data([PIXELS], [str(tmp_path)], normalize=["image=10,2"])
    assert one["image"][0, :, 0, 0].tolist() == [0, 5, 10]
    (each,) = open_data([PIXELS], [str(tmp_path)], normalize=["image=10,10,10,1,2,4"])
    assert each["image"][0, :, 0, 0].tolist() == [0, 5, 5]


def test_normalize_also_serves_uint8_arrays() -> None:
    pixels = np.full((2, 3, 4, 6), 255, np.uint8)
    samples = list(open_data([PIXELS], {"image": pixels}, normalize=["image=127.5,127.5"]))
    assert [s["image"].mean() for s in samples] == [1, 1]


@pytest.mark.parametrize(
    "text", ["image", "image=1", "image=1,0", "image=a,b", "image=1,2,3", "1,2"]
)
def test_malformed_normalize(text: str) -> None:
    with pytest.raises(UsageError, match="is not NAME=MEAN,STD"):
        open_data([PIXELS], ["random"], normalize=[text])


def test_normalize_for_another_number_of_channels() -> None:
    with pytest.raises(DataError, match="2 means for 3 channels"):
        open_data([PIXELS], ["random"], normalize=["image=1,2,3,4"])


def test_an_input_that_is_no_image(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match=r"shape \[1, 3\] is not one image"):
        open_data([X], [str(tmp_path)])


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        open_data([PIXELS], [str(tmp_path)])


def test_without_pillow_the_pip_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match="Pillow") as caught:
        list(open_data([PIXELS], [str(tmp_path)]))
    assert "pip install 'edgec[image]'" in caught.value.hint
