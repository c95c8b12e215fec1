"""The public sets: where they are looked for, how they are fetched, and the real Fashion-MNIST."""

import functools
import hashlib
import http.server
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpucnn import data
from gpucnn.data import public
from tests.test_data_idx import write_set


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty data folder, and no packages of the operating system."""
    folder = tmp_path / "home"
    monkeypatch.setenv("GPUCNN_DATA", str(folder))
    for name, known in public.SETS.items():
        monkeypatch.setitem(public.SETS, name, replace(known, system=()))
    return folder


def test_the_data_folder_is_the_variables_or_the_cache(monkeypatch):
    for name in ("GPUCNN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUCNN_DATA", "~/pictures")
    assert public.data_folder() == Path.home() / "pictures"
    monkeypatch.setenv("GPUCNN_DATA", "")
    assert public.data_folder() == Path.home() / ".cache" / "gpucnn" / "data"
    monkeypatch.delenv("GPUCNN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert public.data_folder() == Path("/caches/gpucnn/data")
    monkeypatch.setenv("GPUCNN_CACHE_DIR", "~/mine")
    assert public.data_folder() == Path.home() / "mine" / "data"


def test_the_data_folder_comes_before_the_systems(home, tmp_path, monkeypatch):
    system = tmp_path / "system"
    system.mkdir()
    known = replace(public.SETS["mnist"], system=(tmp_path / "absent", system))
    monkeypatch.setitem(public.SETS, "mnist", known)
    write_set(system, ending=".gz", train=8)
    loaded = data.load("mnist")
    assert len(loaded.train) == 8 and str(system) in loaded.source
    assert loaded.name == "mnist" and loaded.classes == tuple("0123456789")
    (home / "mnist").mkdir(parents=True)
    write_set(home / "mnist", train=5)
    assert len(data.load("mnist").train) == 5
    (home / "mnist" / "train-labels-idx1-ubyte").unlink()  # incomplete: passed over
    assert len(data.load("mnist").train) == 8


def test_a_folder_given_is_the_only_one(home, tmp_path):
    (home / "fashion-mnist").mkdir(parents=True)
    write_set(home / "fashion-mnist")
    with pytest.raises(FileNotFoundError, match=r"elsewhere: .* Missing: train-images"):
        data.load("fashion-mnist", folder=tmp_path / "elsewhere")
    loaded = data.load("fashion-mnist", folder=home / "fashion-mnist")
    assert loaded.classes[9] == "Ankle boot" and "MIT" in loaded.source


def test_without_pooch_the_error_says_where_it_looked_and_what_to_do(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(FileNotFoundError) as error:
        data.load("fashion-mnist")
    message = str(error.value)
    assert str(home / "fashion-mnist") in message and "t10k-labels-idx1-ubyte.gz" in message
    assert 'pip install "gpucnn[data]"' in message
    assert "apt install dataset-fashion-mnist" in message


def test_download_can_be_forbidden(home):
    with pytest.raises(FileNotFoundError, match=r"was not fetched \(download=False\)"):
        data.load("cifar10", download=False)
    assert not home.exists()


def test_every_file_has_a_hash_over_https():
    for known in public.SETS.values():
        places = {known.url: known.hashes, **known.others}
        assert all(url.startswith("https://") for url in places)
        for value in (value for hashes in places.values() for value in hashes.values()):
            assert re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", value)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A small mnist that a server on this machine hands out; the folder it serves."""
    pooch = pytest.importorskip("pooch", reason="needs pooch")
    pooch.get_logger().setLevel("WARNING")
    folder = tmp_path / "served"
    folder.mkdir()
    write_set(folder, ending=".gz")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        hashes = {
            file.name: f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
            for file in folder.iterdir()
        }
        url = f"http://127.0.0.1:{server.server_port}"
        known = replace(public.SETS["mnist"], url=url, hashes=hashes)
        monkeypatch.setitem(public.SETS, "mnist", known)
        yield folder
        server.shutdown()
        thread.join()


def test_a_set_is_fetched_once_and_kept(served, home):
    first = data.load("mnist")
    assert sorted(p.name for p in (home / "mnist").iterdir()) == sorted(
        p.name for p in served.iterdir()
    )
    for file in served.iterdir():
        file.unlink()
    again = data.load("mnist")  # from the folder alone
    assert np.array_equal(first.train.images, again.train.images)


def test_a_file_with_another_hash_is_refused_and_not_kept(served, home):
    file = served / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(b"something else")
    with pytest.raises(ValueError, match="t10k-labels-idx1-ubyte"):
        data.load("mnist")
    assert not (home / "mnist" / file.name).exists()


def test_a_failed_download_is_told_with_its_address(served):
    (served / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"http://127\S+/t10k-labels\S+: 404"):
        data.load("mnist")


def test_another_place_is_asked_where_the_first_does_not_answer(served, home, monkeypatch):
    known = public.SETS["mnist"]
    elsewhere = replace(known, url=f"{known.url}/gone", others={known.url: known.hashes})
    monkeypatch.setitem(public.SETS, "mnist", elsewhere)
    assert len(data.load("mnist").train) > 0
    (served / "t10k-labels-idx1-ubyte.gz").unlink()
    (home / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"gone/t\S+: 404.*; http://127\S+/t10k\S+: 404"):
        data.load("mnist")


DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs the package dataset-fashion-mnist")
def test_the_real_fashion_mnist(monkeypatch):
    known = replace(public.SETS["fashion-mnist"], system=(DEBIAN,))
    monkeypatch.setitem(public.SETS, "fashion-mnist", known)
    fashion = data.load("fashion-mnist", download=False)
    assert fashion.image_shape == (28, 28, 1) and fashion.train.images.dtype == np.uint8
    assert np.bincount(fashion.train.labels).tolist() == [6000] * 10
    assert np.bincount(fashion.test.labels).tolist() == [1000] * 10
    # the mean and deviation that are published for the training images
    assert round(fashion.train.images.mean() / 255, 4) == 0.2860
    assert round(fashion.train.images[::10].std() / 255, 2) == 0.35
    # a sneaker's or a boot's sole is in the lower half; a T-shirt fills both
    boots = fashion.train.images[fashion.train.labels == 9].mean(axis=(0, 3))
    shirts = fashion.train.images[fashion.train.labels == 0].mean(axis=(0, 3))
    assert boots[:7].mean() < 0.3 * boots[14:21].mean()
    assert shirts[:7].mean() > 0.6 * shirts[14:21].mean()
