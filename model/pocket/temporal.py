"""Mix frames in the pocket turntable model: `TemporalConv`, `TemporalAttention`, `TurntableVolume`.

All take frame features [B*K,C,h,w] and the cameras, and add what the other frames know.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recon.cameras import OrbitConfig, look_at_origin

_GROUPS = 16
_INIT_STD = 0.02


class TemporalConv(nn.Module):
    """A convolution over three neighbouring frames; the turntable is a circle, so it wraps around.

    Frames that are no whole turn (a few views of one, in training) have no neighbours and pass unchanged.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.mix = nn.Linear(3 * channels, channels)
        nn.init.normal_(self.mix.weight, std=_INIT_STD)
        nn.init.zeros_(self.mix.bias)

    def forward(self, x: Tensor, views) -> Tensor:
        """Features [B*K,C,h,w] of B videos of K frames (`unet.Views`) to the same shape."""
        if not views.whole_turn:
            return x
        batch, frames = views.shape
        h = nn.functional.silu(self.norm(x)).reshape(batch, frames, x.shape[1], -1).transpose(2, 3)
        h = self.mix(torch.cat([h.roll(1, 1), h, h.roll(-1, 1)], -1))
        return x + h.transpose(2, 3).reshape(x.shape)


class TemporalAttention(nn.Module):
    """Attention over the frames at each position; frames differ by their azimuth."""

    def __init__(self, channels: int, head_dim: int = 32, harmonics: int = 4) -> None:
        super().__init__()
        self.num_heads = channels // head_dim
        self.orders = range(1, harmonics + 1)
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.angle = nn.Linear(2 * harmonics, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        nn.init.normal_(self.angle.weight, std=0.3)
        nn.init.normal_(self.out.weight, std=_INIT_STD)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, views) -> Tensor:
        """Features [B*K,C,h,w] of B videos of K frames (`unet.Views`) to the same shape."""
        batch, frames = views.shape
        tokens = self.norm(x).reshape(batch, frames, x.shape[1], -1).permute(0, 3, 1, 2)
        waves = [wave for k in self.orders for wave in ((k * views.azimuth).sin(), (k * views.azimuth).cos())]
        tokens = tokens + self.angle(torch.stack(waves, -1).to(x.dtype))[:, None]
        q, k, v = self.qkv(tokens).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 1, 4, 2, 5)
        share = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        h = self.out((share @ v).transpose(2, 3).flatten(3))
        return x + h.permute(0, 2, 3, 1).reshape(x.shape)


class VolumeBlock(nn.Module):
    """A residual block of two 3D convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, width) for _ in range(2)])
        self.convs = nn.ModuleList([nn.Conv3d(width, width, 3, padding=1) for _ in range(2)])

    def forward(self, volume: Tensor) -> Tensor:
        """Cells [B,C,d,d,d] to the same shape."""
        h = volume
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = conv(nn.functional.silu(norm(h)))
        return volume + h


class TurntableVolume(nn.Module):
    """A volume that all frames write to and read from, along the rays of the known orbit.

    Frame features are carried to the cells of a grid over the object's cube (each cell attends over
    the frames), completed by a small 3D U-Net, and read back along every pixel's ray at `grid` depths.
    A turn of the camera is then a resampling, not something to be learnt. After the spatial volume of
    SyncDreamer (Liu et al. 2023c), with attention in place of averaging.
    """

    def __init__(self, channels: int, grid: int = 8, width: int = 64) -> None:
        super().__init__()
        self.grid, self.width = grid, width
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.write = nn.Conv2d(channels, width, 1)
        self.depth_write = nn.Linear(6, width)
        self.gather = nn.Sequential(nn.SiLU(), nn.Linear(width, width + 4))
        self.fine = VolumeBlock(width)
        self.shrink = nn.Conv3d(width, 2 * width, 2, stride=2)
        self.coarse = VolumeBlock(2 * width)
        self.grow = nn.ConvTranspose3d(2 * width, width, 2, stride=2)
        out = nn.Linear(2 * channels, channels)
        nn.init.normal_(out.weight, std=_INIT_STD)
        nn.init.zeros_(out.bias)
        self.read = nn.Sequential(nn.Linear(width * grid, 2 * channels), nn.SiLU(), out)
        nn.init.normal_(self.depth_write.weight, std=0.5)
        orbit = OrbitConfig()
        self.distance, self.tangent = orbit.distance, math.tan(math.radians(orbit.fov_degrees) / 2)

    def forward(self, x: Tensor, views) -> Tensor:
        """Features [B*K,C,h,w] of B videos of K frames (`unet.Views`) to the same shape."""
        batch, frames = views.shape
        elevation = views.elevation[:, None].expand(batch, frames).flatten()
        viewmats = look_at_origin(views.azimuth.flatten().float(), elevation.float(), self.distance)
        volume = self._write(x, viewmats, batch, frames)
        volume = self.fine(volume)
        volume = volume + self.grow(self.coarse(self.shrink(volume)))
        return x + self._read(volume, viewmats, frames, x.shape[-2:]).to(x.dtype)

    def _write(self, x: Tensor, viewmats: Tensor, batch: int, frames: int) -> Tensor:
        grid = self.grid
        axis = (torch.arange(grid, device=x.device) + 0.5) * (2 / grid) - 1
        cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        local = cells @ viewmats[:, :3, :3].transpose(1, 2) + viewmats[:, None, :3, 3]
        where = local[..., :2] / (local[..., 2:] * self.tangent)
        features = self.write(nn.functional.silu(self.norm(x))).float()
        sampled = nn.functional.grid_sample(features, where[:, None], align_corners=False)[:, :, 0].transpose(1, 2)
        depth = (local[..., 2] - self.distance)[..., None] * torch.tensor([1.0, 2.0, 4.0], device=x.device)
        sampled = sampled + self.depth_write(torch.cat([depth.sin(), depth.cos()], -1))
        values, logits = self.gather(sampled).unflatten(0, (batch, frames)).split([self.width, 4], -1)
        share = logits.float().softmax(1).repeat_interleave(self.width // 4, -1)
        return (values * share).sum(1).transpose(1, 2).reshape(batch, self.width, grid, grid, grid)

    def _read(self, volume: Tensor, viewmats: Tensor, frames: int, size) -> Tensor:
        height, width = size
        device = volume.device
        v = ((torch.arange(height, device=device) + 0.5) * (2 / height) - 1) * self.tangent
        u = ((torch.arange(width, device=device) + 0.5) * (2 / width) - 1) * self.tangent
        depth = self.distance - 1 + (torch.arange(self.grid, device=device) + 0.5) * (2 / self.grid)
        z, y, x = torch.meshgrid(depth, v, u, indexing="ij")
        local = torch.stack([x * z, y * z, z], -1).reshape(-1, 3) - viewmats[:, None, :3, 3]
        world = (local @ viewmats[:, :3, :3]).flip(-1)
        world = world.reshape(volume.shape[0], 1, 1, -1, 3)
        sampled = nn.functional.grid_sample(volume.float(), world, align_corners=False)[:, :, 0, 0]
        sampled = sampled.reshape(*sampled.shape[:2], frames, self.grid, height * width).permute(0, 2, 4, 1, 3)
        out = self.read(sampled.flatten(3)).transpose(2, 3)
        return out.reshape(-1, out.shape[2], height, width)
