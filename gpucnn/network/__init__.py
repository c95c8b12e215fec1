"""Networks of layers: a chain, a residual block, any graph without cycles."""

from .base import Network
from .graph import Graph
from .node import Input, Node
from .sequential import Residual, Sequential
from .weights import Parameter

__all__ = ["Graph", "Input", "Network", "Node", "Parameter", "Residual", "Sequential"]
