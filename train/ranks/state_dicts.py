"""The states of a model and of its optimizer as dicts of whole tensors, also where each rank keeps a part of them."""

from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from train.ranks.options import Strategy


class StateDicts(Protocol):
    """How states are taken from a model and its optimizer, and put back. All ranks call each together."""

    def weights(self, module: nn.Module) -> dict[str, Tensor]:
        """Parameters and buffers by their names, on the CPU; in rank 0 at least."""

    def optimizer(self, module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """The state of the optimizer of `module`; in rank 0 at least."""

    def load(self, module: nn.Module, optimizer: Optimizer, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Put back what `weights` and `optimizer` gave to rank 0."""


class WholeStateDicts:
    """Each process has all of it."""

    def weights(self, module: nn.Module) -> dict[str, Tensor]:  # noqa: D102
        return {name: value.detach().cpu() for name, value in module.state_dict().items()}

    def optimizer(self, module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:  # noqa: D102
        return optimizer.state_dict()

    def load(  # noqa: D102
        self, module: nn.Module, optimizer: Optimizer, weights: dict[str, Tensor], state: dict[str, Any]
    ) -> None:
        module.load_state_dict(weights)
        optimizer.load_state_dict(state)


class ShardedStateDicts:
    """Each rank has a part, and rank 0 gathers the whole.

    https://docs.pytorch.org/docs/stable/distributed.checkpoint.html
    """

    def weights(self, module: nn.Module) -> dict[str, Tensor]:  # noqa: D102
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return cast(dict[str, Tensor], get_model_state_dict(module, options=options))

    def optimizer(self, module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:  # noqa: D102
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return get_optimizer_state_dict(module, optimizer, options=options)

    def load(  # noqa: D102
        self, module: nn.Module, optimizer: Optimizer, weights: dict[str, Tensor], state: dict[str, Any]
    ) -> None:
        from torch.distributed.checkpoint import state_dict

        options = state_dict.StateDictOptions(full_state_dict=True)
        state_dict.set_model_state_dict(module, {**weights}, options=options)
        if state["state"]:
            state_dict.set_optimizer_state_dict(module, optimizer, state, options=options)
        else:  # such as SGD without momentum, for which torch fails
            for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
                group.update({name: value for name, value in saved.items() if name != "params"})


STATE_DICTS: Mapping[Strategy, StateDicts] = {
    Strategy.ddp: WholeStateDicts(),
    Strategy.fsdp: ShardedStateDicts(),
}
