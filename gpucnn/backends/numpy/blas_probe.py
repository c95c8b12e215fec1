"""What is known of NumPy's BLAS beyond its interface."""

from __future__ import annotations

from functools import cache

PANEL = 64  # columns of the second factor
SMALL = 1_000_000  # multiply-adds


@cache
def small_products_pay() -> bool:
    """Return whether products of at most ``SMALL`` multiply-adds are quicker than large ones.

    OpenBLAS computes these without copying ("packing") the factors, in kernels that it has for
    AVX-512: per core 240 to 275 against 130 to 230 GFLOP/s in float32, if the second factor lies in
    panels of ``PANEL`` columns. The name of the kernels decides, not a
    measurement: so the order of the sums is the same in every process on a machine.
    """
    try:
        from threadpoolctl import threadpool_info
    except ModuleNotFoundError:
        return False
    return any(
        library["internal_api"] == "openblas"
        and library.get("architecture") in ("SkylakeX", "Cooperlake", "SapphireRapids")
        for library in threadpool_info()
    )
