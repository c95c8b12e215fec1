"""What every operation of a backend means, written as a textbook writes it.

Plain float64 loops, slow and easy to check by eye; tests/test_reference.py proves them by hand and
against PyTorch. Nothing here comes from gpucnn: a geometry ``s`` is any object that has the fields
of a ``ConvShape``, ``PoolShape`` or ``NormShape``, and output sizes are found here anew, by sliding
a window until it no longer fits. Arrays of any dtype come in, float64 goes out.
"""

from .elementwise import (
    activation_backward,
    activation_forward,
    activation_mask,
    mask_backward,
    pointwise_loss,
    prelu_backward,
    prelu_forward,
    softmax_backward,
    softmax_cross_entropy,
    softmax_forward,
)
from .normalization import (
    batch_norm_backward,
    batch_norm_infer,
    batch_norm_train,
    bias_grad,
    group_norm_backward,
    group_norm_forward,
)
from .sliding import conv_dgrad, conv_fprop, conv_wgrad, pool_backward, pool_forward
from .training import (
    adam_update,
    dropout,
    gather_batch,
    global_norm,
    gradient_scale,
    lookahead_update,
    muon_momentum,
    orthogonal,
    philox4x32,
    sgd_update,
)

__all__ = [
    "activation_backward",
    "activation_forward",
    "activation_mask",
    "adam_update",
    "batch_norm_backward",
    "batch_norm_infer",
    "batch_norm_train",
    "bias_grad",
    "conv_dgrad",
    "conv_fprop",
    "conv_wgrad",
    "dropout",
    "gather_batch",
    "global_norm",
    "gradient_scale",
    "group_norm_backward",
    "group_norm_forward",
    "lookahead_update",
    "mask_backward",
    "muon_momentum",
    "orthogonal",
    "philox4x32",
    "pointwise_loss",
    "pool_backward",
    "pool_forward",
    "prelu_backward",
    "prelu_forward",
    "sgd_update",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_forward",
]
