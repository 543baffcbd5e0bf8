"""What inner layers of a network put out while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hwnas.engine.training.criteria import Features


class Taps:
    """Keeps the outputs of some submodules; `taken` hands them over after a forward pass. A context manager."""

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        """Raises AttributeError for a name that no submodule has."""
        self._modules = {name: network.get_submodule(name) for name in names}
        self._features: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Taps:
        for name, module in self._modules.items():

            def keep(_module: nn.Module, _inputs: object, output: object, *, name: str = name) -> None:
                if isinstance(output, Tensor):
                    self._features[name] = output

            self._handles.append(module.register_forward_hook(keep))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def taken(self) -> Features:
        """The outputs since the last call, by name; submodules that did not run are not among them."""
        features, self._features = self._features, {}
        return features
