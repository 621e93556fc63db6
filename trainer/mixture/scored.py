"""Points and the components that matter to them, pair by pair."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scored:
    """Pairs of a point and a component, and what all other pairs add at most.

    rows, components: (p,); scores: (p,), log w_k + log N(x; mu_k, Sigma_k); count: points; left_out: (n,), an upper
    bound of the log of the sum of the densities of all other components, or None where there are none.
    """

    rows: Tensor
    components: Tensor
    scores: Tensor
    count: int
    left_out: Tensor | None = None

    @staticmethod
    def of_all(logits: Tensor) -> "Scored":
        """Every component (n, K) of every point."""
        n, k = logits.shape
        places = torch.arange(n * k, device=logits.device)
        return Scored(places // k, places % k, logits.flatten(), n)

    @property
    def top(self) -> Tensor:
        """(n,): the largest score of each point."""
        return self.scores.new_full((self.count,), -torch.inf).scatter_reduce_(0, self.rows, self.scores, "amax")

    @property
    def log_density(self) -> Tensor:
        """(n,): the log of the sum over components."""
        top = self.top
        sums = top.new_zeros(self.count).index_add_(0, self.rows, (self.scores - top[self.rows]).exp_())
        # A point may be so far from all of them that its distance does not fit in float64.
        return (top + sums.log()).where(top > -torch.inf, -torch.inf)

    @property
    def error(self) -> Tensor:
        """(n,): an upper bound, in nats, of what the log-density lacks of that of all components."""
        density = self.log_density
        return torch.zeros_like(density) if self.left_out is None else (self.left_out - density).exp().log1p()

    @property
    def best(self) -> Tensor:
        """(n,): the component of the largest score, the first of equal ones."""
        is_top = self.scores == self.top[self.rows]
        found = self.components.new_full((self.count,), torch.iinfo(torch.int64).max)
        return found.scatter_reduce_(0, self.rows[is_top], self.components[is_top], "amin")

    def responsibilities(self, k: int) -> Tensor:
        """(n, k): the share of each component in the density of each point.

        Not by the log-density: far from all components the logarithm of the sum is lost beside the largest score.
        """
        shares = (self.scores - self.top[self.rows]).exp_()
        table = shares.new_zeros(self.count, k).index_put_((self.rows, self.components), shares)
        return table.div_(table.sum(1, keepdim=True))
