"""Networks of layers: a chain, a residual block, any graph without cycles."""

from ..layers import LAYERS
from .base import Network
from .frozen import Frozen
from .graph import Graph
from .node import Input, Node
from .sequential import Residual, Sequential
from .weights import Parameter

__all__ = ["Frozen", "Graph", "Input", "Network", "Node", "Parameter", "Residual", "Sequential"]

LAYERS.update({kind.__name__: kind for kind in (Graph, Residual, Sequential)})
