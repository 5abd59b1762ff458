"""Start a fit in the visual hull, the space that every outline leaves to the object: `init_hull`."""

from __future__ import annotations

import torch
from torch import Tensor

from recon.cameras import Cameras
from recon.gaussians import Gaussians, init_ball, points_in_ball
from recon.rasterize.spherical_harmonics import C0

CANDIDATES, MOST_CANDIDATES = 40, 1_000_000
"""Places tried for every Gaussian wanted, and in all."""
OUTSIDE = 0.1
"""Share of the views that may see a place outside the object, for generated outlines contradict each other."""
LEAST = 0.02
"""Share of the wanted Gaussians that must find places of their own; else the places that most views agree on do."""


@torch.no_grad()
def init_hull(
    rgb: Tensor, alpha: Tensor, cameras: Cameras, num_points: int, *, radius: float = 0.5, sh_degree: int = 0,
    generator: torch.Generator | None = None,
) -> Gaussians:  # fmt: skip
    """Isotropic Gaussians, uniform in the visual hull, of the mean colour that the views show there.

    Each standard deviation is that of `init_ball` for a ball of the hull's volume.

    Args:
        rgb: views [V,S,S,3] in [0,1] on white.
        alpha: their coverage [V,S,S] in [0,1].
        cameras: of the V views, around the unit ball.
        num_points: >= 1. sh_degree: 0 to 3.
        radius: of the ball that is taken instead where no view covers any place tried, as of a mask of a single pixel.
    """
    tried = points_in_ball(max(num_points, min(num_points * CANDIDATES, MOST_CANDIDATES)), 1.0, generator)
    covered, colours = look_up(tried, rgb.cpu(), alpha.cpu(), cameras)
    if not covered.any():
        return init_ball(num_points, radius=radius, sh_degree=sh_degree, generator=generator)
    enough = covered.topk(max(1, round(LEAST * num_points))).values[-1]
    inside = torch.nonzero(covered >= enough.clamp(1 / len(rgb), 1 - OUTSIDE))[:, 0]
    chosen = inside[torch.randint(len(inside), (num_points,), generator=generator)]
    share = (len(inside) / len(tried)) ** (1 / 3)
    start = init_ball(num_points, radius=share, sh_degree=sh_degree, generator=generator)
    places = tried[chosen] + 0.5 * start.standard_deviations * torch.randn(num_points, 3, generator=generator)
    start.means = places / places.norm(dim=-1, keepdim=True).clamp_min(1)
    start.sh0 = (colours[chosen, None] - 0.5) / C0
    return start


def look_up(points: Tensor, rgb: Tensor, alpha: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """The share [P] that cover points [P,3] of the views that have them in the picture, and their mean colour [P,3].

    Points that no view has in the picture count as not covered.
    """
    seen, covering, colours = torch.zeros(len(points)), torch.zeros(len(points)), torch.zeros(len(points), 3)
    for viewmat, K, picture, coverage in zip(cameras.viewmats.cpu(), cameras.Ks.cpu(), rgb, alpha, strict=True):
        places = (points @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
        pixels = (places[:, :2] / places[:, 2:]).floor().long()
        there = ((pixels >= 0) & (pixels < cameras.size)).all(-1) & (places[:, 2] > 0)
        x, y = pixels.clamp(0, cameras.size - 1).unbind(-1)
        seen += there
        covering += there & (coverage[y, x] > 0.5)
        colours += there[:, None] * picture[y, x]
    return covering / seen.clamp_min(1), colours / seen[:, None].clamp_min(1)
