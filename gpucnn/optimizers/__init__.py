"""Optimizers: one call for all tensors of a network, in place on the device.

    >>> optimizer = SGD(0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, clip_norm=1.0)
    >>> optimizer.step(model.parameters())                                       # doctest: +SKIP

The learning rate is a number or a ``Schedule`` of the step. Velocities and moments are float32
(float64 for float64 parameters), whatever the parameters are; those of 16 bits have a float32
master, whose rounding they are. Weight decay leaves out parameters of one axis, the biases and the
scales and shifts of normalisation, which gain nothing from it (Jia et al., "Highly Scalable Deep
Learning Training System with Mixed-Precision", 2018), unless ``decay_all`` is set. ``clip_norm``
bounds the norm of all gradients taken together (Pascanu et al., "On the difficulty of training
recurrent neural networks", 2013) with no wait for the device, and ``LossScale`` brings gradients
into the range of float16.
"""

from __future__ import annotations

from .adam import Adam, AdamW
from .base import Optimizer
from .lookahead import Lookahead
from .loss_scale import LossScale
from .muon import Muon
from .sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Lookahead", "LossScale", "Muon", "Optimizer"]
