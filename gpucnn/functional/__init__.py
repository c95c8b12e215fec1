"""Operations on arrays, in forward and backward pairs, with no state.

Each function checks its arrays, computes the geometry and calls the backend that the arrays belong
to: NumPy arrays give NumPy arrays, CuPy arrays give CuPy arrays. Layers are built of these.

    >>> from gpucnn import functional as F
    >>> x, w, b = np.ones((1, 5, 5, 2)), np.ones((4, 3, 3, 2)), np.zeros(4)
    >>> y = F.conv_forward(x, w, b, strides=2, padding="same")
    >>> dx, dw, db = F.conv_backward(np.ones_like(y), x, w, strides=2, padding="same")
    >>> y.shape, dx.shape, dw.shape, db.shape
    ((1, 3, 3, 4), (1, 5, 5, 2), (4, 3, 3, 2), (4,))
"""

from .activation import (
    FromActivation,
    activation_backward,
    activation_forward,
    activation_forward_masked,
    activation_mask,
    prelu_backward,
    prelu_forward,
    saves_output,
)
from .arrange import pad_backward, pad_forward, slice_backward, take_backward, take_forward
from .batch import collect, gather_batch
from .conv import conv_backward, conv_forward, conv_forward_masked, conv_shape
from .conv_norm import conv_norm_infer, conv_norm_train
from .conv_pool import conv_pool_backward, conv_pool_forward, conv_pool_shapes
from .conv_transpose import (
    conv_transpose_backward,
    conv_transpose_forward,
    conv_transpose_shape,
)
from .dense import (
    dense_backward,
    dense_forward,
    dense_forward_masked,
    dense_norm_infer,
    dense_norm_train,
)
from .dropout import (
    dropout_backward,
    dropout_forward,
    dropout_forward_masked,
    drops_with_mask,
)
from .elementwise import (
    add,
    arithmetic_backward,
    arithmetic_forward,
    clip_backward,
    clip_forward,
    elementwise_backward,
    elementwise_forward,
    shrink_backward,
    shrink_forward,
)
from .layout import channels_first, channels_last
from .local_response import local_response_norm_backward, local_response_norm_forward
from .mask import Mask, has_mask, mask_backward
from .matmul import matmul_backward, matmul_forward
from .norm import (
    batch_norm_backward,
    batch_norm_infer,
    batch_norm_pool_train,
    batch_norm_train,
    group_norm_backward,
    group_norm_forward,
    layer_norm_backward,
    layer_norm_forward,
)
from .pool import (
    global_pool_backward,
    global_pool_forward,
    global_pool_shape,
    pool_backward,
    pool_forward,
    pool_shape,
)
from .reduce import reduce_backward, reduce_forward
from .resize import resize_backward, resize_forward
from .softmax import softmax_backward, softmax_forward
from .unapplied import Unapplied
from .unpool import max_unpool_backward, max_unpool_forward, pool_places

__all__ = [
    "FromActivation",
    "Mask",
    "Unapplied",
    "activation_backward",
    "activation_forward",
    "activation_forward_masked",
    "activation_mask",
    "add",
    "arithmetic_backward",
    "arithmetic_forward",
    "batch_norm_backward",
    "batch_norm_infer",
    "batch_norm_pool_train",
    "batch_norm_train",
    "channels_first",
    "channels_last",
    "clip_backward",
    "clip_forward",
    "collect",
    "conv_backward",
    "conv_forward",
    "conv_forward_masked",
    "conv_norm_infer",
    "conv_norm_train",
    "conv_pool_backward",
    "conv_pool_forward",
    "conv_pool_shapes",
    "conv_shape",
    "conv_transpose_backward",
    "conv_transpose_forward",
    "conv_transpose_shape",
    "dense_backward",
    "dense_forward",
    "dense_forward_masked",
    "dense_norm_infer",
    "dense_norm_train",
    "dropout_backward",
    "dropout_forward",
    "dropout_forward_masked",
    "drops_with_mask",
    "elementwise_backward",
    "elementwise_forward",
    "gather_batch",
    "global_pool_backward",
    "global_pool_forward",
    "global_pool_shape",
    "group_norm_backward",
    "group_norm_forward",
    "has_mask",
    "layer_norm_backward",
    "layer_norm_forward",
    "local_response_norm_backward",
    "local_response_norm_forward",
    "mask_backward",
    "matmul_backward",
    "matmul_forward",
    "max_unpool_backward",
    "max_unpool_forward",
    "pad_backward",
    "pad_forward",
    "pool_backward",
    "pool_forward",
    "pool_places",
    "pool_shape",
    "prelu_backward",
    "prelu_forward",
    "reduce_backward",
    "reduce_forward",
    "resize_backward",
    "resize_forward",
    "saves_output",
    "shrink_backward",
    "shrink_forward",
    "slice_backward",
    "softmax_backward",
    "softmax_forward",
    "take_backward",
    "take_forward",
]
