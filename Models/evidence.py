"""The evidence of Gaussian processes, with a gradient that is cheaper than the one autograd would find."""

import torch
from torch import Tensor


class Evidence(torch.autograd.Function):
    """Negative log evidence of B Gaussian processes with covariance noise * K, and the left-out errors.

    -log N(e; 0, noise K) = (e · K^-1 e / noise + log |K| + n log noise) / 2, up to a constant, and its gradients:
    Rasmussen and Williams 2006, equations 5.8 and 5.9; left-out errors: equation 5.12.
    """

    @staticmethod
    def forward(ctx, kernel: Tensor, error: Tensor, log_noise: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """From [B, L, L] and [B, L], padded with rows of the identity and with zeros, to a scalar and [B, L]."""
        factor, failed = torch.linalg.cholesky_ex(kernel)
        factor[failed > 0] = torch.nan
        inverse = torch.cholesky_inverse(factor)
        weights = (inverse @ error[..., None]).squeeze(-1)
        n, noise = count.sum(), log_noise.exp()
        fit = (weights * error).sum() / noise
        loss = 0.5 * (fit + n * log_noise) + factor.diagonal(dim1=1, dim2=2).log().sum()
        ctx.save_for_backward(inverse, weights, noise, n - fit)
        left_out = weights / inverse.diagonal(dim1=1, dim2=2)
        ctx.mark_non_differentiable(left_out)
        return loss, left_out

    @staticmethod
    def backward(ctx, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        inverse, weights, noise, excess = ctx.saved_tensors
        by_kernel = 0.5 * gradient * (inverse - weights[:, :, None] * weights[:, None] / noise)
        return by_kernel, gradient * weights / noise, 0.5 * gradient * excess, None


def with_noise(kernel: Tensor, real: Tensor) -> Tensor:
    """K + 1 of past ratings, [B, L, L]; rows and columns of padding are those of the identity."""
    both = real[:, :, None] & real[:, None]
    return kernel * both + torch.eye(kernel.shape[1], device=kernel.device)
