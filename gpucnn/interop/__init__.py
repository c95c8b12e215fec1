"""Beside other libraries: their arrays in and out, and models as they take them.

    as_array, as_torch, as_jax, like    one array, the same memory
    torch                               a model as a ``torch.nn.Module``
    dask                                predictions over a Dask array

What needs another library imports it when it is called.
"""

from .arrays import as_array, as_jax, as_torch, like

__all__ = ["as_array", "as_jax", "as_torch", "like"]
