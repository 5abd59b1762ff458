"""Show assets in the browser with viser, one at a time, chosen by prompt: `Viewer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.ledger.finished_assets import read
from factory.stages.asset_ply import gaussians_of
from factory.storage.interface import StorageConfig

if TYPE_CHECKING:
    from recon.gaussians import Gaussians

Row = dict[str, Any]
MAX_LISTED = 500
"""Assets in the list at once; the filter finds the others."""


def covariances(gaussians: Gaussians) -> NDArray[np.float32]:
    """[N,3,3] R S S^T R^T (Kerbl et al. 2023, equation 6)."""
    from scipy.spatial.transform import Rotation

    quats = gaussians.unit_quats.cpu().numpy()
    axes = Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix() * gaussians.standard_deviations.cpu().numpy()[:, None]
    return (axes @ axes.transpose(0, 2, 1)).astype(np.float32)


class Viewer:
    """A web server that shows one asset at a time to everybody who opens it.

    Args:
        assets: rows of `finished.FINISHED`, at least one.
        host: address to listen on. port: TCP port; the next free one where it is taken.
        storage: how the assets are reached.
    """

    def __init__(self, assets: Sequence[Row], host: str, port: int, storage: StorageConfig) -> None:
        import viser

        self.storage = storage
        self.assets = {_label(row): row for row in assets}
        self.server = viser.ViserServer(host=host, port=port, label="im3d view", verbose=False)
        self.server.scene.set_up_direction("+y")
        self.server.initial_camera.position = (0.0, 0.9, 2.9)
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
        gui = self.server.gui
        self.filter = gui.add_text("Filter", "", hint="Show assets whose prompt or id holds this")
        self.choice = gui.add_dropdown("Asset", list(self.assets)[:MAX_LISTED])
        self.prompt = gui.add_text("Prompt", "", disabled=True, multiline=True)
        self.about = gui.add_text("About", "", disabled=True, multiline=True)
        following, before = gui.add_button("Next"), gui.add_button("Previous")
        self.filter.on_update(lambda _: self._list())
        self.choice.on_update(lambda _: self.show(self.choice.value))
        following.on_click(lambda _: self._step(1))
        before.on_click(lambda _: self._step(-1))
        self.show(self.choice.value)

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return self.server.get_port()

    def show(self, label: str) -> None:
        """Show the asset of this label; what cannot be read is said in its place."""
        row = self.assets[label]
        self.prompt.value = row["prompt"] or ""
        try:
            gaussians = gaussians_of(read(row, "ply", self.storage), row["ply"])
        except (OSError, ValueError) as error:
            self.server.scene.remove_by_name("/asset")
            self.about.value = f"cannot be shown: {error}"
            return
        self.server.scene.add_gaussian_splats(
            "/asset",
            centers=gaussians.means.cpu().numpy(),
            covariances=covariances(gaussians),
            rgbs=gaussians.base_colours.cpu().numpy(),
            opacities=gaussians.alphas[:, None].cpu().numpy(),
        )
        seed = "" if row["seed"] is None else f", seed {row['seed']}"
        self.about.value = f"{row['prompt_id']}: {len(gaussians)} Gaussians{seed}"

    def _list(self) -> None:
        """Offer what the filter lets through; an asset that it hides stays in view."""
        wanted = self.filter.value.casefold()
        found = [label for label in self.assets if wanted in label.casefold()][:MAX_LISTED]
        if found:
            self.choice.options = found

    def _step(self, by: int) -> None:
        options = list(self.choice.options)
        self.choice.value = options[(options.index(self.choice.value) + by) % len(options)]


def _label(row: Row) -> str:
    return f"{row['prompt']} ({row['prompt_id']})" if row["prompt"] else row["prompt_id"]
