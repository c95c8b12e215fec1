"""torchvision's networks, with random weights and statistics."""

from __future__ import annotations

import torch

try:
    import torchvision
except RuntimeError:
    # Its operators for boxes are compiled for another torch (CUDA's, where ours is the CPU's). No
    # classifier calls one, but the import wants the names of two.
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
    import torchvision

models = torchvision.models


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """Draw the norms' parameters and statistics, too, and return the network for inference."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for array in (module.running_mean, module.bias.data):
                array.normal_(0, 0.1, generator=generator)
            for array in (module.running_var, module.weight.data):
                array.uniform_(0.5, 1.5, generator=generator)
    return network.eval()
