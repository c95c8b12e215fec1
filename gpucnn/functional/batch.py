"""What feeds a step and what it leaves behind: batches of pictures, losses and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..arguments import as_int
from ..backends import backend_of
from ..backends.base import FLOATS, Array
from ..changes import UNCHANGED, Changes


def gather_batch(
    images: Array, labels: Array, order: Array, place: Any, count: int, table: Array,
    changes: Changes = UNCHANGED, *, seed: int = 0, owner: str = "gather_batch",
) -> tuple[Array, Array]:  # fmt: skip
    """Take a batch out of a set of pictures, each shifted, flipped and covered at random.

    The random numbers are functions of (seed, epoch, place in the epoch) alone (Philox4x32-10,
    Salmon et al. 2011): the same whatever the batch size, and on every backend.

    Args:
        images: (M, H, W, C) uint8. labels: (M,) int64.
        order: (N,) int32, the pictures of an epoch.
        place: epoch * 2^32 + the place in the order of the batch's first picture: a number, or a
            0-d int64 array (see ``gpucnn.varying``), which nothing checks.
        count: pictures of the batch.
        table: (256, C), what each pixel value of each channel becomes.
        changes: what is drawn for each picture.
        seed: 64 bits.

    Returns:
        x (count, H, W, C) in table's dtype, and their labels (count,).

    Raises:
        ValueError: a shape does not fit, or the batch does not lie within the order.
        TypeError: a dtype does not fit, or the arrays lie on different devices.

    Example:
        >>> images, labels = np.arange(6, dtype=np.uint8).reshape(3, 1, 2, 1), np.array([7, 8, 9])
        >>> table = np.arange(256.0)[:, None] / 2
        >>> x, y = gather_batch(images, labels, np.array([2, 0, 1], np.int32), 1, 2, table)
        >>> x.ravel(), y
        (array([0. , 0.5, 1. , 1.5]), array([7, 8]))
    """
    backend = backend_of(owner, images=images, labels=labels, order=order, table=table)
    arrays = {"images": images, "labels": labels, "order": order, "table": table}
    expected = {"images": "uint8", "labels": "int64", "order": "int32"}
    for name, dtype in expected.items():
        if arrays[name].dtype.name != dtype:
            raise TypeError(f"{owner}: {name} must be {dtype}. Received: {arrays[name].dtype}")
    if table.dtype.name not in FLOATS:
        raise TypeError(
            f"{owner}: table must be one of {', '.join(FLOATS)}. Received: {table.dtype}"
        )
    shape = tuple(images.shape)
    if (
        images.ndim != 4 or 0 in shape or labels.shape != shape[:1] or order.ndim != 1
        or table.shape != (256, shape[3])
    ):  # fmt: skip
        received = ", ".join(f"{name} {tuple(array.shape)}" for name, array in arrays.items())
        raise ValueError(
            f"{owner}: images must be (M, H, W, C), labels (M,), order (N,) and table (256, C)."
            f" Received: {received}"
        )
    if changes.fill is None and changes.shift >= min(shape[1:3]):
        raise ValueError(
            f"{owner}: a picture is mirrored by less than its height and width."
            f" Received: {changes} for pictures of {shape[1]}x{shape[2]}"
        )
    count = as_int(owner, "count", count)
    if not backend.owns(place):
        first = int(place) % 2**32
        if place < 0 or first + count > len(order):
            raise ValueError(
                f"{owner}: the batch must lie within the order of {len(order)} pictures."
                f" Received: place={int(place)}, which begins at {first}, and count={count}"
            )
    return backend.gather_batch(
        *map(backend.arranged, (images, labels, order)), place, count, backend.arranged(table),
        changes, seed,
    )  # fmt: skip


def collect(values: Sequence[Array], ring: Array, row: Any, *, owner: str = "collect") -> None:
    """Write 0-d values, one a column, into ring[row] (rows, columns) float64, in place.

    Values of other dtypes than float32 and float64 are converted. ``row`` is a number in [0, rows),
    or a 0-d int64 array that holds one (see ``gpucnn.varying``).

    Raises:
        ValueError: the values are not 0-d, one for each column; or there is no such row.
        TypeError: they lie on different devices.

    Example:
        >>> ring = np.zeros((2, 2))
        >>> collect([np.array(0.5, np.float32), np.array(3.0)], ring, 1)
        >>> ring.tolist()
        [[0.0, 0.0], [0.5, 3.0]]
    """
    backend = backend_of(owner, ring=ring, **{f"values[{i}]": v for i, v in enumerate(values)})
    if ring.ndim != 2 or ring.dtype.name != "float64" or not ring.flags.c_contiguous:
        raise ValueError(
            f"{owner}: ring must be (rows, columns) float64, C-contiguous."
            f" Received: {ring.dtype} {tuple(ring.shape)}"
        )
    shapes = [tuple(value.shape) for value in values]
    if shapes != [()] * ring.shape[1]:
        raise ValueError(
            f"{owner}: values must be 0-d, one for each of the {ring.shape[1]} columns."
            f" Received: shapes {shapes}"
        )
    if not backend.owns(row) and not 0 <= row < len(ring):
        raise ValueError(f"{owner}: row must be in [0, {len(ring)}). Received: row={row}")
    exact = ("float32", "float64")
    backend.collect(
        [v if v.dtype.name in exact else v.astype("float64") for v in values], ring, row
    )
