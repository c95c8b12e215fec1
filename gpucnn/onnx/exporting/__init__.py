"""Networks as ONNX graphs: one exporter a family of layers, in a file a family.

``builder`` makes the graph and keeps book of where each array's axes lie, ``registry`` finds the
exporter of a layer, and ``model`` puts it together.
"""

from .model import export, save

__all__ = ["export", "save"]
