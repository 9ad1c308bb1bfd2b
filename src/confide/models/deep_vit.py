"""A vision transformer with re-attention, for codes: records that are unordered rows of numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from confide.models.base import Network
from confide.models.layers import initialise_uniform


class ReAttention(nn.Module):
    """Layer norm, then attention whose maps are mixed over the heads.

    ``new[g] = sum_h old[h] * mix[h, g]``, then a layer norm over the heads (Zhou et al., arXiv
    2103.11886 (2021), equation 3).
    """

    def __init__(self, width: int, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * head_width, bias=False)
        self.key = nn.Linear(width, heads * head_width, bias=False)
        self.value = nn.Linear(width, heads * head_width, bias=False)
        self.mix = nn.Parameter(torch.empty(heads, heads))
        self.mix_norm = nn.LayerNorm(heads)
        self.out = nn.Linear(heads * head_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, rows, width) -> (n, rows, width); each row attends to all."""
        x = self.norm(x)
        query, key, value = (
            layer(x).view(*x.shape[:-1], self.heads, self.head_width).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.mT * self.head_width**-0.5
        weight = self._mixed(scores.softmax(dim=-1).movedim(1, -1)).movedim(-1, 1)
        out: Tensor = self.out((weight @ value).transpose(1, 2).flatten(2))
        return out

    def of_token(self, token: Tensor, rows: Tensor) -> Tensor:
        """What :meth:`forward` gives for `token` when it stands before `rows`, and no more.

        A score is q . (K x) = (K' q) . x, and a weighted sum of values is V (sum of w x): with one
        query a record no key or value of a row is needed, which takes ``2 * heads`` products with
        each row instead of ``2 * heads * head_width``.  Rows are standardised only.  The scale of
        the norm acts on what they are multiplied with; its shift adds the same to all scores,
        which softmax does not see.

        Parameters
        ----------
        token : (width,), the same for all records, or (n, width)
        rows : (n, rows, width)

        Returns
        -------
        (n, width)
        """
        plain, seen = self._standardised(token), self._standardised(rows)
        heads = (self.heads, self.head_width)
        query = self.query(self.norm(token)).view(*token.shape[:-1], *heads)
        key = self.key.weight.view(*heads, -1)
        asked = torch.einsum("...hd,hdc->...hc", query * self.head_width**-0.5, key)
        asked = asked * self.norm.weight
        own = (asked * plain.unsqueeze(-2)).sum(dim=-1).expand(len(rows), self.heads)
        scores = torch.cat([own[:, None], seen @ asked.mT], dim=1)
        weight = self._mixed(scores.softmax(dim=1))
        total = weight[:, 1:].mT @ seen + weight[:, 0, :, None] * plain.unsqueeze(-2)
        total = total * self.norm.weight + weight.sum(dim=1)[..., None] * self.norm.bias
        value = self.value.weight.view(*heads, -1)
        out: Tensor = self.out(torch.einsum("nhc,hdc->nhd", total, value).flatten(1))
        return out

    def _standardised(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], eps=self.norm.eps)

    def _mixed(self, weight: Tensor) -> Tensor:
        """Mix (..., heads) over the heads and standardise over them."""
        mixed: Tensor = self.mix_norm(weight @ self.mix)
        return mixed


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self, width: int, *, heads: int, head_width: int, mlp: int, dropout: float
    ) -> None:
        super().__init__()
        self.attention = ReAttention(width, heads, head_width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, mlp * width)
        self.narrow = nn.Linear(mlp * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(n, rows, width) -> (n, rows, width)."""
        return self._rest(x, self.attention(x))

    def of_token(self, token: Tensor, rows: Tensor) -> Tensor:
        """(n, width) of the token alone; see :meth:`ReAttention.of_token`."""
        return self._rest(token, self.attention.of_token(token, rows))

    def _rest(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.dropout(attended)
        y = self.dropout(functional.gelu(self.wide(self.norm(x))))
        return x + self.dropout(self.narrow(y))


class DeepViT(Network):
    """Codes (n, rows, width) -> logits (n, outputs): the classifier of Yala et al., 2021.

    arXiv 2106.02484, after Zhou et al., arXiv 2103.11886.  A learned token stands before
    the rows, and the head reads it after the last block; in that block nothing else is computed.
    Without `position` the order of the rows does not matter.

    Parameters
    ----------
    n_rows, width : shape of a code
    outputs : logits a record
    depth, heads, head_width, mlp, dropout : see :class:`~confide.models.DeepViTSettings`
    position : whether a learned embedding is added to the rows; for codes that keep their order
    """

    def __init__(
        self,
        n_rows: int,
        width: int,
        outputs: int,
        *,
        depth: int,
        heads: int,
        head_width: int,
        mlp: int,
        dropout: float,
        position: bool = False,
    ) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.empty(width))
        self.position = nn.Parameter(torch.empty(n_rows, width)) if position else None
        blocks = [
            Block(width, heads=heads, head_width=head_width, mlp=mlp, dropout=dropout)
            for _ in range(depth)
        ]
        self.blocks, self.last = nn.ModuleList(blocks[:-1]), blocks[-1]
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def draw(self, generator: torch.Generator) -> None:
        """Draw all weights anew, as the authors do."""
        initialise_uniform(self, generator)

    def features(self, x: Tensor) -> Tensor:
        """(n, rows, width) -> (n, width)."""
        if self.position is not None:
            x = x + self.position
        token: Tensor = self.token
        if len(self.blocks):
            x = torch.cat([token.expand(len(x), 1, -1), x], dim=1)
            for block in self.blocks:
                x = block(x)
            token, x = x[:, 0], x[:, 1:]
        out: Tensor = self.norm(self.last.of_token(token, x))
        return out
