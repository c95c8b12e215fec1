"""The table of operators that the files beside this one fill."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ...network import Node
from ..call import Call

Operator = Callable[..., Any]

OPERATORS: dict[str, Operator] = {}


def operator(*kinds: str, known: bool = False) -> Callable[[Operator], Operator]:
    """Enter a function into the table under the operators' names.

    ``known`` marks one that computes with arrays alone: with shapes, masks and constants.
    """

    def enter(function: Operator) -> Operator:
        @wraps(function)
        def on_arrays(call: Call, *inputs: Any) -> Any:
            if any(isinstance(value, Node) for value in inputs):
                raise call.refuse("it is supported for values that are known at loading alone")
            return function(call, *inputs)

        for kind in kinds:
            OPERATORS[kind] = on_arrays if known else function
        return function

    return enter
