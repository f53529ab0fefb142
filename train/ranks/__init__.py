"""Several processes that train one model: what torchrun starts. The rest of train/ sees a `Group` of callables."""
