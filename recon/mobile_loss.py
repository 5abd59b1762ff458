"""Compare renders with kept features by the embedded network on a CPU, with the gradient in one pass: `MobileLoss`.

The network is frozen and the loss is a number a view, so nothing but the picture's gradient is wanted: it is found
along with the value, without a graph. Values and gradients equal those of `recon.perceptual.MobileTrunk` to rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor

from recon import mobile_kernels as kernels
from recon.perceptual import MobileBlock, MobileTrunk
from recon.rasterize.simd import WIDTH

Features = list[Tensor]
"""Unit features [h*w,C] of every tap of one picture."""


class _Matrix(NamedTuple):
    """A 1x1 convolution: `weight` [C_in,C_out] and `bias` [C_out]."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, layer: torch.nn.Conv2d) -> _Matrix:
        """Of any convolution without groups, whose patches are rows (kernel row, kernel column, channel)."""
        assert layer.bias is not None
        return cls(layer.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), layer.bias)

    def __call__(self, rows: Tensor) -> Tensor:
        return torch.addmm(self.bias, rows, self.weight)

    def gradient(self, rows: Tensor) -> Tensor:
        """Of the inputs, from that of the outputs."""
        return rows @ self.weight.T


class _Block:
    """A `MobileBlock` over pictures [h*w,C]."""

    def __init__(self, block: MobileBlock):
        layer = block.depthwise
        assert layer.bias is not None
        self.expand = None if block.expand is None else _Matrix.of(block.expand)
        self.project, self.residual = _Matrix.of(block.project), block.residual
        self.taps = layer.weight[:, 0].permute(1, 2, 0).flatten().numpy()
        self.bias, self.kernel, self.stride = layer.bias.numpy(), layer.kernel_size[0], layer.stride[0]

    def forward(self, x: Tensor, side: tuple[int, int]) -> tuple[Tensor, tuple[int, int], tuple[Tensor, Tensor]]:
        """The next picture, its sides, and what `gradient` needs."""
        wide = x if self.expand is None else self.expand(x).clamp_(0, 6)
        tall, across = (-(-length // self.stride) for length in side)
        deep = x.new_empty(tall * across, wide.shape[1])
        kernels.depthwise(
            _flat(wide), (*side, wide.shape[1]), self.taps, self.bias, self.kernel, self.stride, _flat(deep)
        )
        y = self.project(deep)
        return y.add_(x) if self.residual else y, (tall, across), (wide, deep)

    def gradient(self, gradients: Tensor, side: tuple[int, int], kept: tuple[Tensor, Tensor]) -> Tensor:
        """Of the picture of sides `side` that `forward` took."""
        wide, deep = kept
        inner = self.project.gradient(gradients)
        kernels.mask_relu6(_flat(inner), _flat(deep))
        outer, passed = torch.empty_like(wide), wide if self.expand is not None else wide[:0]
        kernels.depthwise_gradient(
            _flat(inner), (*side, wide.shape[1]), self.taps, self.kernel, self.stride, _flat(passed), _flat(outer)
        )
        found = outer if self.expand is None else self.expand.gradient(outer)
        return found.add_(gradients) if self.residual else found


class MobileLoss:
    """Distances of renders to targets by a `MobileTrunk`, whose channels are multiples of `WIDTH`."""

    def __init__(self, network: MobileTrunk):
        self.mean, self.scale = network.mean, 1 / network.std
        self.stem, self.blocks = _Matrix.of(network.stem), [_Block(block) for block in network.blocks]  # pyright: ignore[reportArgumentType]
        self.weights = dict(zip(network.taps, network.weights, strict=True))

    @staticmethod
    def takes(network: Any) -> TypeGuard[MobileTrunk]:
        """Whether `network` is one that this class computes."""
        return isinstance(network, MobileTrunk) and all(
            layer.out_channels % WIDTH == 0 for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)
        )

    @torch.no_grad()
    def features(self, pictures: Tensor) -> list[Features]:
        """Of pictures [V,H,W,3] in [0,1]."""
        return [self._unit(self._run(picture)[0]) for picture in pictures.contiguous()]

    def distance(self, pictures: Tensor, targets: list[Features]) -> Tensor:
        """The distances [B] of pictures [B,H,W,3] to one target each, with gradients."""
        return _Distance.apply(pictures, self, targets)  # type: ignore[return-value]

    def value(self, picture: Tensor, target: Features, wanted: bool) -> tuple[float, Tensor | None]:
        """The distance of one picture [H,W,3], and its gradient if it is wanted."""
        found, kept = self._run(picture)
        gradients, total = [torch.empty_like(one) if wanted else one[:0] for one in found], 0.0
        pairs = zip(target, found, self.weights.values(), gradients, strict=True)
        for unit, features, weight, gradient in pairs:
            args = _flat(unit), _flat(features), features.shape[1], weight, _flat(gradient)
            total += float(kernels.distance_to(*args))
        return total, self._back(picture, dict(zip(self.weights, gradients, strict=True)), kept) if wanted else None

    def _run(self, picture: Tensor) -> tuple[list[Tensor], list[Any]]:
        """Features [h*w,C] of every tap, and what `_back` needs."""
        height, width = picture.shape[:2]
        side = (height + 1) // 2, (width + 1) // 2
        patches = picture.new_empty(side[0] * side[1], self.stem.weight.shape[0])
        kernels.columns(picture.numpy(), self.mean, self.scale, patches.numpy())
        x = self.stem(patches).clamp_(0, 6)
        taps, kept = {0: x}, list[Any]([x])
        for number, block in enumerate(self.blocks, start=1):
            before = side
            x, side, inner = block.forward(x, side)
            taps[number] = x
            kept.append((before, inner))
        return [taps[number] for number in self.weights], kept

    def _back(self, picture: Tensor, gradients: dict[int, Tensor], kept: list[Any]) -> Tensor:
        """The gradient [H,W,3] of the picture, from those of the taps."""
        flow: Tensor | None = None
        for number in range(len(self.blocks), -1, -1):
            if number in gradients:
                flow = gradients[number] if flow is None else flow.add_(gradients[number])
            if number and flow is not None:
                flow = self.blocks[number - 1].gradient(flow, *kept[number])
        found = torch.zeros_like(picture)
        if flow is not None:
            kernels.mask_relu6(_flat(flow), _flat(kept[0]))
            kernels.from_columns(self.stem.gradient(flow).numpy(), self.scale, found.numpy())
        return found

    @staticmethod
    def _unit(found: list[Tensor]) -> Features:
        units = [torch.empty_like(features) for features in found]
        for features, unit in zip(found, units, strict=True):
            kernels.unit_features(_flat(features), features.shape[1], _flat(unit))
        return units


class _Distance(torch.autograd.Function):
    """(pictures) -> distances, of a `MobileLoss` and its targets."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        """One picture after the other; gradients are kept where they are wanted."""
        pictures, loss, targets = args
        pairs = zip(pictures.contiguous(), targets, strict=True)
        values, gradients = zip(*(loss.value(*pair, ctx.needs_input_grad[0]) for pair in pairs), strict=True)
        ctx.gradients = gradients
        return pictures.new_tensor(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The kept gradients, each times its view's."""
        return torch.stack(ctx.gradients) * grads[0][:, None, None, None], None, None


def _flat(rows: Tensor) -> Any:
    return rows.flatten().numpy()
