"""Gemm, MatMul and Einsum."""

from __future__ import annotations

from ... import functional as F
from ...backends.base import Array, accumulator
from ...layers import Dense, MatMul
from ...network import Node
from ..call import Call, Value
from .registry import operator


@operator("Gemm")
def gemm(call: Call, a: Value, b: Value, c: Array | None = None) -> Value:
    """alpha * op(a) @ op(b) + beta * c, op being the transpose where transA or transB say so."""
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if not isinstance(a, Node) and not isinstance(b, Node):
        a, b = a.T if call.get("transA") else a, b.T if call.get("transB") else b
        y = F.matmul_forward(a, b, owner=call.label)
        y = y if alpha == 1 else y * y.dtype.type(alpha)
        return y if c is None else (y + c * c.dtype.type(beta)).astype(y.dtype)
    if isinstance(b, Node) or isinstance(c, Node):
        raise call.refuse("the weights must be known when the model is loaded")
    if call.get("transA"):
        raise call.refuse("transA=1, the samples of a batch would no longer lie first")
    kernel = (b if call.get("transB") else b.T) * b.dtype.type(alpha)  # (units, features)
    if c is not None and c.ndim > 1 and c.shape[0] != 1:
        raise call.refuse(f"a bias of shape {c.shape}, another one for each sample")
    return _dense(call, a, kernel, None if c is None else c * c.dtype.type(beta))


@operator("MatMul")
def matmul(call: Call, a: Value, b: Value) -> Value:
    if not isinstance(a, Node) and not isinstance(b, Node):
        return F.matmul_forward(a, b, owner=call.label)
    if isinstance(a, Node) and isinstance(b, Node):
        if min(len(a.shape), len(b.shape)) < 2:
            raise call.refuse("the samples of a batch would be mixed")
        return call.apply(MatMul(), a, b)
    if isinstance(b, Node):
        y = call.apply(MatMul(), *_as_nodes(call, a if a.ndim > 1 else a[None], b))
        return y if a.ndim > 1 else call.reshape(y, (*call.sizes(y)[:-2], y.shape[-1]))
    if b.ndim > 2:
        return call.apply(MatMul(), *_as_nodes(call, a, b))
    if b.ndim == 1:
        return call.reshape(_dense(call, a, b[None], None), call.sizes(a)[:-1])
    return _dense(call, a, b.T, None)


def _as_nodes(call: Call, a: Value, b: Value) -> tuple[Node, Node]:
    """Return both factors as values of the graph, the constant with as many axes as the other."""
    node = a if isinstance(a, Node) else b
    rank = len(node.shape) + 1

    def lifted(value: Value) -> Node:
        if isinstance(value, Node):
            return value
        return call.as_node(value.reshape((1,) * (rank - value.ndim) + value.shape), node)

    return lifted(a), lifted(b)


def _dense(call: Call, x: Node, kernel: Array, bias: Array | None) -> Value:
    layer = Dense(kernel.shape[0], use_bias=bias is not None)
    weights = {"kernel": kernel}
    if bias is not None:
        weights["bias"] = call.xp.broadcast_to(bias.ravel(), kernel.shape[:1])
    return call.apply(layer, x, **weights)


@operator("Einsum", known=True)
def einsum(call: Call, *values: Array) -> Array:
    """Products and sums by letters; those of 16-bit numbers are carried in float32."""
    dtype = values[0].dtype
    wide = dtype if dtype.kind in "iub" else accumulator(dtype)
    y = call.xp.einsum(call.get("equation"), *(value.astype(wide) for value in values))
    return y.astype(dtype)
