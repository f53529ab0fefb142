"""A Lightning module and its Trainer, whose optimizers call forward and backward in a closure."""

import logging
import warnings

import lightning
import torch
import torch.nn.functional as F
from common import loader, network, options
from torch import Tensor


class Classifier(lightning.LightningModule):
    """Ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One for all parameters."""
        return torch.optim.AdamW(self.parameters())


settings = options()
warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
lightning.seed_everything(0)
trainer = lightning.Trainer(
    accelerator="cpu", max_epochs=settings.epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(Classifier(), loader(settings))
