"""A loop with automatic mixed precision, a GradScaler, a fused optimizer and a learning rate's schedule."""

import torch
import torch.nn.functional as F
from common import Spin, loader, network, options

settings = options()
model, spin = network(), Spin(settings.spin)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 100)
scaler = torch.amp.GradScaler("cpu")
batches = loader(settings)
for _ in range(settings.epochs):
    for images, labels in batches:
        optimizer.zero_grad(set_to_none=not settings.keep_grads)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        spin()
