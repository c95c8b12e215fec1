"""Pictures of a training: what was learnt, how fast, where the time went, what is still mistaken.

Every function returns a matplotlib ``Figure``, or draws on a part of one that it is given; pyplot
and its global state are not used, so nothing opens a window. Needs the extra "plots".

>>> figure = confusion_matrix([[9, 1], [0, 10]], ["cat", "dog"])
>>> figure.savefig("confusion_matrix.png")                                       # doctest: +SKIP
"""

from __future__ import annotations

try:
    import matplotlib as _matplotlib  # noqa: F401 - to say at once what is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'pictures need the package matplotlib: pip install "gpucnn[plots]"'
    ) from error

from .confusion import confusion_matrix
from .curves import learning_curve
from .filters import filter_comparison, filter_grid, first_kernel
from .maps import feature_maps
from .overview import overview
from .timeline import timeline

__all__ = [
    "confusion_matrix",
    "feature_maps",
    "filter_comparison",
    "filter_grid",
    "first_kernel",
    "learning_curve",
    "overview",
    "timeline",
]
