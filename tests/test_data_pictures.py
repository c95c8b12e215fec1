"""A folder of pictures: layout, colours, sizes, and broken files."""

import sys

import numpy as np
import pytest

from gpucnn import data
from gpucnn.data import Split

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")


def picture(seed, height=4, width=6, channels=3):
    shape = (height, width, channels)[: 3 if channels > 1 else 2]
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def write_classes(root, counts, first_seed=0):
    """{class: number}; returns the pictures in the order of the classes' and the files' names."""
    written = []
    for name in sorted(counts):
        for i in range(counts[name]):
            written.append(picture(first_seed + len(written)))
            save(root / name / f"{i:03}.png", written[-1])
    return np.array(written)


def test_train_and_test_folders(tmp_path):
    train = write_classes(tmp_path / "train", {"cat": 3, "ant": 2, "bee": 1})
    test = write_classes(tmp_path / "test", {"cat": 1, "ant": 2}, 50)
    loaded = data.load(tmp_path)
    assert loaded.classes == ("ant", "bee", "cat") and loaded.name == tmp_path.name
    assert np.array_equal(loaded.train.images, train)
    assert loaded.train.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert np.array_equal(loaded.test.images, test)
    assert loaded.test.labels.tolist() == [0, 0, 2]


def test_class_folders_are_divided_by_the_seed(tmp_path):
    written = write_classes(tmp_path, {"ant": 12, "bee": 8})
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("not a picture")
    (tmp_path / "ant" / "._000.png").write_bytes(b"not a picture")
    loaded = data.load(tmp_path, test_fraction=0.25, seed=9)
    train, test = Split(written, np.repeat([0, 1], [12, 8])).split(0.25, 9)
    assert np.array_equal(loaded.train.images, train.images)
    assert np.array_equal(loaded.test.images, test.images)
    assert np.array_equal(loaded.test.labels, test.labels)


def test_classes_called_train_and_test_without_subfolders_are_classes(tmp_path):
    write_classes(tmp_path, {"train": 4, "test": 4})
    assert data.load(tmp_path, test_fraction=0.5).classes == ("test", "train")


def test_grey_colour_palette_and_transparency(tmp_path):
    grey, colour = picture(1, channels=1), picture(2)
    rgba = np.dstack([colour, np.full(colour.shape[:2], 90, np.uint8)])
    for name, array in (("grey", grey), ("colour", colour), ("alpha", rgba)):
        save(tmp_path / f"{name}.png", array)
    Image.fromarray(grey).convert("P").save(tmp_path / "palette.png")

    def read(name, channels):
        return data.read_picture(tmp_path / f"{name}.png", channels=channels)

    assert np.array_equal(read("grey", 1), grey[:, :, None])
    assert np.array_equal(read("grey", 3), np.dstack([grey] * 3))
    assert np.array_equal(read("palette", 1), grey[:, :, None])
    assert np.array_equal(read("colour", 3), colour)
    assert np.array_equal(read("alpha", 3), colour)
    luma = colour @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
    assert np.abs(read("colour", 1)[:, :, 0] - luma).max() <= 1


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path):
    deep = np.random.default_rng(3).integers(0, 65536, (4, 6), np.uint16)
    file = save(tmp_path / "deep.png", deep)
    assert np.array_equal(data.read_picture(file, channels=1)[:, :, 0], deep >> 8)
    assert np.array_equal(data.read_picture(file)[:, :, 2], deep >> 8)


def test_exif_turns_a_picture_upright(tmp_path):
    upright = picture(4)
    exif = Image.Exif()
    exif[0x0112] = 8  # the camera was turned: rotate by 90 degrees
    file = save(tmp_path / "turned.png", np.rot90(upright, -1).copy(), exif=exif)
    assert np.array_equal(data.read_picture(file), upright)


def test_size_resizes_and_averages(tmp_path):
    big = np.kron(picture(5, 3, 2), np.ones((4, 4, 1), np.uint8))
    assert data.read_picture(save(tmp_path / "a.png", big), size=(5, 7)).shape == (5, 7, 3)
    stripes = np.zeros((16, 16), np.uint8)
    stripes[::2] = 200
    small = data.read_picture(save(tmp_path / "s.png", stripes), size=4, channels=1)
    assert small.shape == (4, 4, 1) and np.abs(small[1:3].astype(int) - 100).max() <= 10


def test_differing_sizes_need_a_size(tmp_path):
    write_classes(tmp_path, {"ant": 3, "bee": 3})
    save(tmp_path / "bee" / "zz.png", picture(9, 5, 6))
    with pytest.raises(ValueError, match=r"give size=.*Received: \(5, 6\), and \(4, 6\)") as error:
        data.load(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "bee" / "zz.png"))
    assert data.load(tmp_path, size=8, channels=1).image_shape == (8, 8, 1)


def test_a_test_picture_of_another_size_is_told_too(tmp_path):
    write_classes(tmp_path / "train", {"ant": 3})
    save(tmp_path / "test" / "ant" / "odd.png", picture(9, 5, 6))
    with pytest.raises(ValueError, match=r"odd\.png: pictures must have one size"):
        data.load(tmp_path)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "webp", "tif"])
def test_a_broken_picture_is_named(tmp_path, ending):
    whole = save(tmp_path / f"whole.{ending}", picture(6, 40, 50)).read_bytes()
    for content in (b"", b"not a picture", whole[: len(whole) // 2], whole[:20]):
        file = tmp_path / f"broken.{ending}"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"broken\.{ending}: not a readable picture"):
            data.read_picture(file)


def test_a_broken_picture_in_a_folder_is_named(tmp_path):
    write_classes(tmp_path, {"ant": 3, "bee": 3})
    (tmp_path / "bee" / "001.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"001\.png: not a readable picture") as error:
        data.load(tmp_path)
    assert str(tmp_path / "bee") in str(error.value)


def test_folders_that_do_not_fit_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder a class"):
        data.load(tmp_path)
    write_classes(tmp_path / "train", {"ant": 2})
    write_classes(tmp_path / "test", {"ant": 2, "cow": 1})
    with pytest.raises(ValueError, match=r"must be in train too. Received: \['cow'\]"):
        data.load(tmp_path)
    (tmp_path / "train" / "cow").mkdir()
    with pytest.raises(ValueError, match=r"cow: expected pictures \(.png,.*Received: none"):
        data.load(tmp_path)


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"channels must be one of 1, 3. Received: channels=4"):
        data.read_picture(tmp_path / "a.png", channels=4)
    with pytest.raises(ValueError, match=r"size .* Received: size=\(3, 0\)"):
        data.read_picture(tmp_path / "a.png", size=(3, 0))
    with pytest.raises(FileNotFoundError, match=r"a\.png: no such picture"):
        data.read_picture(tmp_path / "a.png")


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "gpucnn\[data\]"'):
        data.read_picture(tmp_path / "a.png")
