"""Beside other libraries.

    load_state_dict    weights of PyTorch's networks, from safetensors, ONNX or arrays

What needs another library imports it when it is called.
"""

from .weights import load_state_dict

__all__ = ["load_state_dict"]
