"""A loop in the style of https://github.com/pytorch/examples/blob/main/mnist/main.py."""

import torch
import torch.nn.functional as F
from common import Spin, loader, network, options

settings = options()
model, spin = network(), Spin(settings.spin)
memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
model.to(memory_format=memory_format)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
batches = loader(settings)
for _ in range(settings.epochs):
    model.train()
    for images, labels in batches:
        optimizer.zero_grad(set_to_none=not settings.keep_grads)
        loss = F.cross_entropy(model(images.contiguous(memory_format=memory_format)), labels)
        loss.backward()
        optimizer.step()
        spin()
    model.eval()
    with torch.no_grad():
        correct = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in batches)
    print(f"loss {loss:.3f}, {correct} right")
