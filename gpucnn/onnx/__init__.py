"""ONNX: networks for other runtimes.

>>> import gpucnn
>>> gpucnn.onnx.save(model, "model.onnx")                                        # doctest: +SKIP

Needs the package onnx: pip install "gpucnn[onnx]".
"""

from .exporting import export, save

__all__ = ["export", "save"]
