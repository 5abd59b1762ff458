"""Where a fit starts: Gaussians in the visual hull, the space that every outline leaves to the object."""

from __future__ import annotations

import torch
from torch import Tensor

from recon.cameras import Cameras
from recon.gaussians import Gaussians, init_ball
from recon.rasterize.spherical_harmonics import C0

CANDIDATES = 40
"""Places tried for every Gaussian wanted."""
OUTSIDE = 0.1
"""Share of the views that may see a place outside the object, for generated outlines contradict each other."""
LEAST = 0.02
"""Share of the wanted Gaussians that must find places of their own; else the places that most views agree on do."""


@torch.no_grad()
def init_hull(
    rgb: Tensor, alpha: Tensor, cameras: Cameras, num_points: int, *, sh_degree: int = 0,
    generator: torch.Generator | None = None,
) -> Gaussians:  # fmt: skip
    """Isotropic Gaussians, uniform in the visual hull, of the mean colour that the views show there.

    Each standard deviation is that of `init_ball` for a ball of the hull's volume.

    Args:
        rgb: views [V,S,S,3] in [0,1] on white.
        alpha: their coverage [V,S,S] in [0,1], not all empty.
        cameras: of the V views, around the unit ball.
        num_points: >= 1. sh_degree: 0 to 3.
    """
    ball = init_ball(num_points * CANDIDATES, radius=1.0, generator=generator)
    seen, colours = look_up(ball.means, rgb.cpu(), alpha.cpu(), cameras)
    enough = seen.topk(max(1, round(LEAST * num_points))).values[-1]
    inside = torch.nonzero(seen >= enough.clamp_max(1 - OUTSIDE))[:, 0]
    chosen = inside[torch.randint(len(inside), (num_points,), generator=generator)]
    start = init_ball(num_points, radius=(len(inside) / len(seen)) ** (1 / 3), sh_degree=sh_degree, generator=generator)
    jitter = 0.5 * start.scales.exp() * torch.randn(num_points, 3, generator=generator)
    start.means = ball.means[chosen] + jitter
    start.sh0 = (colours[chosen, None] - 0.5) / C0
    return start


def look_up(points: Tensor, rgb: Tensor, alpha: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """The share of the views [P] that cover each of the points [P,3], and the mean colour [P,3] they show there."""
    covering, colours = torch.zeros(len(points)), torch.zeros(len(points), 3)
    for viewmat, K, picture, coverage in zip(cameras.viewmats.cpu(), cameras.Ks.cpu(), rgb, alpha, strict=True):
        places = (points @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
        x, y = (places[:, :2] / places[:, 2:]).floor().long().clamp(0, cameras.size - 1).unbind(-1)
        covering += coverage[y, x] > 0.5
        colours += picture[y, x]
    return covering / len(rgb), colours / len(rgb)
