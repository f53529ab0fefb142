"""A small vision transformer."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from models.interface import AttentionFunction


def attention_math(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention as separate operators, equation 1 of Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762).

    The arguments and the result are [B, heads, T, dim/heads]. The scores [B, heads, T, T] are stored in memory; a fused
    kernel of `torch.nn.functional.scaled_dot_product_attention` avoids that.
    """
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5  # [B, heads, T, T]
    return torch.softmax(scores, dim=-1) @ value


class ViT(nn.Module):
    """A pre-norm transformer over patches (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929).

    Position embeddings are learned, and the head reads the mean of the tokens instead of a class token (Beyer et al.
    2022, https://arxiv.org/abs/2205.01580).

    Raises:
        ValueError: the image's side is not a multiple of `patch`, or `dim` not one of `heads`.
    """

    def __init__(
        self,
        *,
        channels: int,
        image_size: int,
        classes: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        dropout: float,
        attention: AttentionFunction = scaled_dot_product_attention,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"patch={patch} does not divide the image's side of {image_size} pixels")
        if dim % heads:
            raise ValueError(f"heads={heads} does not divide dim={dim}")
        self.embed = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(torch.empty((image_size // patch) ** 2, dim))  # [T, dim]
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(dim, heads, dropout, attention) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Float images [B, C, H, W] to logits [B, classes]."""
        tokens = self.embed(images).flatten(2).transpose(1, 2)  # [B, T, dim]
        tokens = self.blocks(self.dropout(tokens + self.positions))
        logits: Tensor = self.head(self.norm(tokens).mean(dim=1))
        return logits


class Block(nn.Module):
    """Self-attention, then an MLP; each reads normalized tokens and is added to its input: [B, T, dim] throughout."""

    def __init__(self, dim: int, heads: int, dropout: float, attention: AttentionFunction) -> None:
        super().__init__()
        self.attn = nn.Sequential(nn.LayerNorm(dim), SelfAttention(dim, heads, attention), nn.Dropout(dropout))
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim), nn.Dropout(dropout)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T, dim] to tokens [B, T, dim]."""
        tokens = tokens + self.attn(tokens)
        output: Tensor = tokens + self.mlp(tokens)
        return output


class SelfAttention(nn.Module):
    """Multi-head self-attention over [B, T, dim]."""

    def __init__(self, dim: int, heads: int, attention: AttentionFunction) -> None:
        super().__init__()
        self.heads = heads
        self.attention = attention
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T, dim] to tokens [B, T, dim]."""
        packed = self.query_key_value(tokens).unflatten(-1, (3, self.heads, -1))  # [B, T, 3, heads, dim/heads]
        query, key, value = packed.permute(2, 0, 3, 1, 4)  # each [B, heads, T, dim/heads]
        mixed = self.attention(query, key, value)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out
