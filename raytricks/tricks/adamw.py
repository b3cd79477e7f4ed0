"""AdamW: Adam with decoupled weight decay, torch's own, fused."""

from typing import Any

import torch

from raytricks.parts.hooks import Hooks
from raytricks.parts.optimizers import AdamwConfig


def _build(groups: list[dict[str, Any]], lr: float, settings: AdamwConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, lr, betas=settings.betas, eps=settings.epsilon, fused=True)


HOOKS = Hooks(build=_build)
