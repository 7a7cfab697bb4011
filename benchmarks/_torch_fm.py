"""The same factorization machine in PyTorch, written in the ways that are fast there.

Two fields, user and item, so the score is w0 + w_u + w_i + <V_u, V_i>. All data are tensors on the
CPU from the start; an epoch takes ``randperm`` and picks each batch by ``index_select``.

- :class:`Autograd` is the usual module: ``nn.Embedding``, ``mse_loss``, ``backward`` and one of
  PyTorch's optimizers.
- :class:`ClosedForm` does without autograd: it writes the gradient down, and keeps [V_u, w_u, 1]
  and [V_i, 1, w_i] as rows of one table: a score is one product, a gradient one ``index_add_``.
- :class:`ClosedFormLazy` updates only the rows that occur in the batch, as fmknn does.

The first two can be compiled by ``torch.compile``, which needs a C++ compiler. No side has weight
decay: updates of all rows, of the batch's rows and of SparseAdam would mean different things by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

EPS = 1e-8


@dataclass(frozen=True)
class Settings:
    """Hyperparameters that both sides share."""

    n_factors: int
    batch_size: int
    bias_lr: float
    lr: float
    init_sigma: float
    seed: int


@dataclass(frozen=True)
class Ratings:
    """Standardised ratings as tensors; an item's row comes after those of the users."""

    pairs: torch.Tensor  # (n, 2): user, n_users + item
    targets: torch.Tensor
    n_users: int
    n_items: int

    @classmethod
    def of(
        cls, users: np.ndarray, items: np.ndarray, targets: np.ndarray, shape: tuple[int, int]
    ) -> Ratings:
        """Build the tensors from arrays of positions and targets."""
        pairs = np.stack([users, items + shape[0]], axis=1).astype(np.int64)
        return cls(torch.from_numpy(pairs), torch.from_numpy(targets.astype(np.float32)), *shape)

    def head(self, n: int) -> Ratings:
        """Return the first n rows."""
        return Ratings(self.pairs[:n], self.targets[:n], self.n_users, self.n_items)

    def batches(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield pairs and targets of the batches of one shuffled pass."""
        for rows in torch.randperm(len(self.targets)).split(size):
            yield self.pairs.index_select(0, rows), self.targets.index_select(0, rows)


class _Module(torch.nn.Module):
    def __init__(self, n_users: int, n_items: int, n_factors: int, sigma: float, sparse: bool):
        super().__init__()
        n_rows = n_users + n_items
        self.factors = torch.nn.Embedding(n_rows, n_factors, sparse=sparse)
        self.linear = torch.nn.Embedding(n_rows, 1, sparse=sparse)
        self.bias = torch.nn.Parameter(torch.zeros(()))
        torch.nn.init.normal_(self.factors.weight, std=sigma)
        torch.nn.init.zeros_(self.linear.weight)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        vectors = self.factors(pairs)
        product = (vectors[:, 0] * vectors[:, 1]).sum(1)
        return self.bias + self.linear(pairs).sum((1, 2)) + product


class Autograd:
    """A module trained by PyTorch's own optimizer: "foreach", "fused" or "sparse" Adam."""

    def __init__(
        self, ratings: Ratings, settings: Settings, kind: str, *, compiled: bool = False
    ) -> None:
        self.ratings, self.batch_size = ratings, settings.batch_size
        torch.manual_seed(settings.seed)
        sparse = kind == "sparse"
        shape = ratings.n_users, ratings.n_items
        self.module = _Module(*shape, settings.n_factors, settings.init_sigma, sparse)
        tables = [self.module.factors.weight, self.module.linear.weight]
        bias = {"params": [self.module.bias], "lr": settings.bias_lr}
        if sparse:
            self.optimizers = [
                torch.optim.SparseAdam(tables, lr=settings.lr, eps=EPS),
                torch.optim.Adam([bias], eps=EPS),
            ]
        else:
            groups = [{"params": tables, "lr": settings.lr}, bias]
            self.optimizers = [torch.optim.Adam(groups, eps=EPS, **{kind: True})]
        self._loss = torch.compile(self._batch_loss) if compiled else self._batch_loss

    def _batch_loss(self, pairs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.nn.functional.mse_loss(self.module(pairs), targets)

    def epoch(self) -> None:
        """Go once over the ratings."""
        for pairs, targets in self.ratings.batches(self.batch_size):
            loss = self._loss(pairs, targets)
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.step()

    @torch.no_grad()
    def scores(self, pairs: torch.Tensor) -> torch.Tensor:
        """Return the scores of pairs."""
        return self.module(pairs)


class ClosedForm:
    """The gradient written down, in one table; all rows updated by PyTorch's fused Adam."""

    def __init__(self, ratings: Ratings, settings: Settings, *, compiled: bool = False) -> None:
        self.ratings, self.settings = ratings, settings
        torch.manual_seed(settings.seed)
        k, n_users = settings.n_factors, ratings.n_users
        self.table = torch.randn(n_users + ratings.n_items, k + 2) * settings.init_sigma
        self.table[:, k:] = 0.0
        self.bias = _ScalarAdam(settings.bias_lr)
        self.n_steps = 0
        self._gradient = torch.compile(_gradient) if compiled else _gradient
        self._restore_ones()
        self._prepare()

    def _restore_ones(self) -> None:
        k, n_users = self.settings.n_factors, self.ratings.n_users
        self.table[:n_users, k + 1] = 1.0
        self.table[n_users:, k] = 1.0

    def _prepare(self) -> None:
        self.table.grad = torch.zeros_like(self.table)
        self.optimizer = torch.optim.Adam([self.table], lr=self.settings.lr, eps=EPS, fused=True)

    @torch.no_grad()
    def epoch(self) -> None:
        """Go once over the ratings."""
        for pairs, targets in self.ratings.batches(self.settings.batch_size):
            self.n_steps += 1
            slope = self._step(pairs, targets - self.bias.value)
            self.bias.step(slope, self.n_steps)
            self._restore_ones()

    def _step(self, pairs: torch.Tensor, targets: torch.Tensor) -> float:
        entities = pairs.view(-1)
        sums = self.table.grad
        slope = self._gradient(self.table, entities, targets, sums, entities)
        self.optimizer.step()
        return float(slope)

    @torch.no_grad()
    def scores(self, pairs: torch.Tensor) -> torch.Tensor:
        """Return the scores of pairs."""
        left, right = self.table[pairs[:, 0]], self.table[pairs[:, 1]]
        return (left * right).sum(1) + self.bias.value


def _gradient(
    table: torch.Tensor,
    entities: torch.Tensor,
    targets: torch.Tensor,
    sums: torch.Tensor,
    places: torch.Tensor,
) -> torch.Tensor:
    """Sum the rows' gradients into ``sums`` at ``places``; returns the gradient of w0."""
    width = table.shape[1]
    vectors = table.index_select(0, entities).view(-1, 2, width)
    slope = ((vectors[:, 0] * vectors[:, 1]).sum(1) - targets) * (1.0 / len(targets))
    gradient = (vectors.flip(1) * slope[:, None, None]).view(-1, width)
    sums.zero_().index_add_(0, places, gradient)
    return slope.sum()


class ClosedFormLazy(ClosedForm):
    """The gradient written down; only the rows of the batch, and their moments, are updated."""

    def _prepare(self) -> None:
        n_entities = 2 * self.settings.batch_size
        self.first_moment = torch.zeros_like(self.table)
        self.second_moment = torch.zeros_like(self.table)
        self.last_place = torch.empty(len(self.table), dtype=torch.int64)
        self.places = torch.arange(n_entities)
        self.sums = torch.empty(n_entities, self.table.shape[1])

    def _step(self, pairs: torch.Tensor, targets: torch.Tensor) -> float:
        entities = pairs.view(-1)
        # one of an entity's places in the batch stands for all of them: no sorting needed
        places = self.places[: len(entities)]
        self.last_place[entities] = places
        owner = self.last_place.index_select(0, entities)
        sums = self.sums[: len(entities)]
        slope = self._gradient(self.table, entities, targets, sums, owner)
        owners = (owner == places).nonzero().squeeze(1)
        rows = entities.index_select(0, owners)
        g = sums.index_select(0, owners)
        m = self.first_moment.index_select(0, rows).lerp_(g, 0.1)
        s = self.second_moment.index_select(0, rows).mul_(0.999).addcmul_(g, g, value=0.001)
        self.first_moment.index_copy_(0, rows, m)
        self.second_moment.index_copy_(0, rows, s)
        rate = self.settings.lr * _correction(self.n_steps)
        step = m.div_(s.sqrt_().add_(EPS)).mul_(-rate)
        self.table.index_add_(0, rows, step)
        return float(slope)


class _ScalarAdam:
    """Adam for w0, in plain numbers: a tensor of one element costs more to call than to compute."""

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.value = self.m = self.s = 0.0

    def step(self, gradient: float, t: int) -> None:
        self.m = 0.9 * self.m + 0.1 * gradient
        self.s = 0.999 * self.s + 0.001 * gradient * gradient
        self.value -= self.lr * _correction(t) * self.m / (self.s**0.5 + EPS)


def _correction(t: int) -> float:
    return (1.0 - 0.999**t) ** 0.5 / (1.0 - 0.9**t)


PEERS: dict[str, Callable[[Ratings, Settings], Autograd | ClosedForm]] = {
    "autograd, Adam(foreach)": lambda r, s: Autograd(r, s, "foreach"),
    "autograd, Adam(fused)": lambda r, s: Autograd(r, s, "fused"),
    "autograd, SparseAdam": lambda r, s: Autograd(r, s, "sparse"),
    "closed form, Adam(fused)": ClosedForm,
    "closed form, lazy Adam": ClosedFormLazy,
}
COMPILED: dict[str, Callable[[Ratings, Settings], Autograd | ClosedForm]] = {
    "compiled autograd, Adam(fused)": lambda r, s: Autograd(r, s, "fused", compiled=True),
    "compiled closed form, Adam(fused)": lambda r, s: ClosedForm(r, s, compiled=True),
}
