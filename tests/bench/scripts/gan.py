"""Two networks, each with its optimizer: a step trains both."""

import torch
import torch.nn.functional as F
from common import Spin, loader, options
from torch import nn

settings = options()
generator = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 784), nn.Tanh())
critic = nn.Sequential(nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))
optimizer_g = torch.optim.Adam(generator.parameters(), lr=2e-4)
optimizer_c = torch.optim.Adam(critic.parameters(), lr=2e-4)
spin, batches = Spin(settings.spin), loader(settings)


def loss_of(scores: torch.Tensor, truth: float) -> torch.Tensor:
    """How far scores are from the truth."""
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, truth))


for _ in range(settings.epochs):
    for images, _ in batches:
        fakes = generator(torch.randn(len(images), 64))
        optimizer_c.zero_grad()
        (loss_of(critic(images.flatten(1)), 1.0) + loss_of(critic(fakes.detach()), 0.0)).backward()
        optimizer_c.step()
        optimizer_g.zero_grad()
        loss_of(critic(fakes), 1.0).backward()
        optimizer_g.step()
        spin()
