"""What happens to a module before TVM sees it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hwnas.devices.compile.lowering import fold_batch_norm


class Edge(nn.Module):
    """Of one input, or of two that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))

    def forward(self, total: Tensor, source: Tensor | None = None) -> Tensor:
        if source is None:
            return self.convolution(total)
        return total + self.convolution(source)


@pytest.mark.parametrize("inputs", [1, 2])
def test_an_input_that_is_not_given_keeps_its_default(inputs: int) -> None:
    torch.manual_seed(0)
    model = Edge().eval()
    model.convolution[1].running_mean.uniform_()
    examples = (torch.randn(1, 3, 4, 4), torch.randn(1, 2, 4, 4))[-inputs:]
    program = torch.export.export(fold_batch_norm(model, inputs), examples)
    assert not [node for node in program.graph.nodes if "batch_norm" in str(node.target)]
    torch.testing.assert_close(program.module()(*examples), model(*examples))


def test_a_module_that_cannot_be_traced_stays_as_it_is() -> None:
    class Branching(Edge):
        def forward(self, total: Tensor, source: Tensor | None = None) -> Tensor:
            return self.convolution(total) if total.sum() > 0 else total

    assert isinstance(fold_batch_norm(Branching()), Branching)
