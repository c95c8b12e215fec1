"""CIFAR-10 in parts below 64 MiB, to be carried to a machine that has no network.

    python -m profiling.cifar_parts OUT            write OUT/part-1.npz and OUT/part-2.npz
    python -m profiling.cifar_parts --read OUT     unpack them where ``gpucnn train`` looks

A part is an .npz of every second image, the training images first, and of the labels: NumPy alone
reads it. Pixels are stored as differences, which deflate packs better. In megabytes for all 60,000
images, and seconds of one core to write and to read them:

    what                                  MB    write    read
    the .tar.gz of the data set         170.1              1.5
    npz of the pixels                   169.5       5      0.9
    the npm package's PNG               138.9              1.6
    PNG, pictures side by side          129.4      15      2.1
    npz of differences (this one)       109.8      15      2.1
    WebP, lossless, side by side        102.6      34      1.1     needs Pillow where it is read
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from gpucnn import data
from gpucnn.data import Dataset, public
from gpucnn.data.cifar import BATCHES

PARTS = 2
LIMIT = 64 << 20


def differences(images: np.ndarray) -> np.ndarray:
    """Return images (N, H, W, C) as what deflate packs well; ``pixels`` turns it back.

    Red and blue become their differences from green; a pixel, in each channel, what is left of it
    after its neighbours' prediction left + above - (left and above). All modulo 256.
    """
    out = images.copy()
    out[..., [0, 2]] -= images[..., 1:2]
    out[:, :, 1:] -= out[:, :, :-1].copy()
    out[:, 1:] -= out[:, :-1].copy()
    return np.ascontiguousarray(out.transpose(3, 0, 1, 2))  # (N, H, W, C) -> (C, N, H, W)


def pixels(stored: np.ndarray) -> np.ndarray:
    """Return the images (N, H, W, C) that ``differences`` was given."""
    out = stored.cumsum(axis=2, dtype=np.uint8).cumsum(axis=3, dtype=np.uint8)
    out[[0, 2]] += out[1]
    return np.ascontiguousarray(out.transpose(1, 2, 3, 0))  # (C, N, H, W) -> (N, H, W, C)


def write(dataset: Dataset, folder: Path) -> list[Path]:
    """Write the parts; the test images go last.

    Raises:
        ValueError: a part came out too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = np.concatenate([dataset.train.images, dataset.test.images])
    labels = np.concatenate([dataset.train.labels, dataset.test.labels]).astype(np.uint8)
    files = []
    for number in range(PARTS):
        file = folder / f"part-{number + 1}.npz"
        np.savez_compressed(
            file,
            stored=differences(images[number::PARTS]),
            labels=labels[number::PARTS],
            train=len(dataset.train),
        )
        if file.stat().st_size >= LIMIT:
            raise ValueError(
                f"{file}: a part must be below {LIMIT} bytes. Received: {file.stat().st_size}"
            )
        files.append(file)
    return files


def read(folder: Path) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return ((images, labels) of the training, (images, labels) of the test).

    Raises:
        FileNotFoundError: a part is missing.
    """
    parts = [np.load(folder / f"part-{number + 1}.npz") for number in range(PARTS)]
    count = sum(len(part["labels"]) for part in parts)
    images, labels = np.empty((count, 32, 32, 3), np.uint8), np.empty(count, np.uint8)
    for number, part in enumerate(parts):
        images[number::PARTS], labels[number::PARTS] = pixels(part["stored"]), part["labels"]
    train = int(parts[0]["train"])
    return (images[:train], labels[:train]), (images[train:], labels[train:])


def unpack(folder: Path, out: Path) -> None:
    """Write the binary version of CIFAR-10 (see ``gpucnn.data.cifar``), which needs no Pillow."""
    out.mkdir(parents=True, exist_ok=True)
    (images, labels), test = read(folder)
    shares = zip(np.split(images, 5), np.split(labels, 5), strict=True)
    for name, (x, y) in zip(BATCHES, (*shares, test), strict=True):
        # (n, 32, 32, 3) -> (n, 3, 32, 32) -> (n, 3072), behind its label
        rows = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        (out / f"{name}.bin").write_bytes(np.concatenate([y[:, None], rows], axis=1).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="CIFAR-10 in parts below 64 MiB")
    parser.add_argument("folder", type=Path, metavar="OUT", help="where the parts lie")
    parser.add_argument("--read", action="store_true", help="unpack the parts")
    parser.add_argument("--data", default="cifar10", help="a folder or an archive of CIFAR-10")
    arguments = parser.parse_args()
    if arguments.read:
        home = public.data_folder() / "cifar10"
        unpack(arguments.folder, home)
        print(data.load("cifar10", download=False), "in", home)
        return
    for file in write(data.load(arguments.data), arguments.folder):
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
