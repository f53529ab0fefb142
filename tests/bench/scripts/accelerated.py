"""A loop with Hugging Face's Accelerate, which accumulates the gradients of two batches."""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from common import loader, network, options

settings = options()
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model = network()
optimizer = torch.optim.AdamW(model.parameters())
model, optimizer, batches = accelerator.prepare(model, optimizer, loader(settings))
for _ in range(settings.epochs):
    for images, labels in batches:
        with accelerator.accumulate(model):
            loss = F.cross_entropy(model(images), labels)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=not settings.keep_grads)
