"""Muon, the optimizer of the weight matrices, batched over matrices of one shape.

The momentum of each matrix is replaced by the nearest orthogonal one, found by five quintic
Newton-Schulz steps (Jordan et al., "Muon", 2024), scaled so that its entries are about as
large as AdamW's steps (Liu et al., arXiv:2502.16982). Stacking equal shapes is what makes it fast
on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
MOMENTUM = 0.95


def orthogonal(stack: Any, dtype: Any) -> Any:
    """Bring all singular values of a stack of matrices, [n, rows, columns], near 1."""
    tall = stack.shape[1] > stack.shape[2]
    x = stack.to(dtype)
    x = x.mT.contiguous() if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Optimizer: orthogonalised Nesterov momentum, with decoupled weight decay.

    `dtype` is the one that it computes in.
    """

    def __init__(
        self, matrices: Iterable[Any], torch: Any, dtype: Any, weight_decay: float = 0.05
    ) -> None:
        self.torch = torch
        self.dtype = dtype
        self.weight_decay = weight_decay
        self.groups: dict[tuple[int, ...], list[Any]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.momenta = {
            shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()
        }

    def step(self, rate: float) -> None:
        """Update every matrix by its gradient, with the learning rate `rate`."""
        with self.torch.no_grad():
            for shape, group in self.groups.items():
                gradients = self.torch.stack([matrix.grad for matrix in group])
                momentum = self.momenta[shape].lerp_(gradients, 1 - MOMENTUM)
                updates = orthogonal(gradients.lerp(momentum, MOMENTUM), self.dtype)
                scale = 0.2 * max(shape) ** 0.5
                for matrix, update in zip(group, updates, strict=True):
                    matrix.mul_(1 - rate * self.weight_decay).add_(update, alpha=-rate * scale)
