"""Inference: there is no optimizer that could end a step, so the script says where it ends."""

import torch
from common import Spin, network, options

import profiling

settings = options()
model, spin = network().eval(), Spin(settings.spin)
memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
model.to(memory_format=memory_format)
with torch.inference_mode():
    while True:
        with profiling.phase("transfer"):
            images = torch.randn(settings.batch_size, 1, 28, 28).contiguous(memory_format=memory_format)
        with profiling.phase("predict"):
            classes = model(images).argmax(1)
        spin()
        profiling.step(samples=len(classes))
