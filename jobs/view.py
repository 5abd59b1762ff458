"""Look at assets in the browser: `im3d view --run DIR`, then open the address that it prints.

Exit code: 0 when it was stopped, 2 when nothing could be shown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.base import Job, start
from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.outputs.viewer import Viewer


@dataclass(kw_only=True, slots=True)
class View(Job):
    """Show the assets of a run, or PLY files; turn them with the mouse, choose by prompt. Ctrl+C ends it."""

    run: str | None = None
    """Output folder of `im3d generate`, local or s3://; it may still be going."""
    ply: tuple[str, ...] = ()
    """3D Gaussian splatting PLY files, local or s3://, instead of a run."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in, without any password."""
    port: int = 8080
    """TCP port; the next free one where it is taken."""

    def __post_init__(self) -> None:
        if bool(self.run) == bool(self.ply):
            raise UserError("give either --run with the folder of a run or --ply with PLY files")
        if not 0 < self.port < 65536:
            raise UserError(f"port is {self.port}; it must lie in 1..65535")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, serve until Ctrl+C; returns the exit code."""
    return start("view", View, run, argv)


def run(job: View) -> int:
    """Serve until Ctrl+C; returns the exit code. Raises UserError for the user."""
    viewer = open_viewer(job)
    print(f"{len(viewer.assets)} assets at http://{job.host}:{viewer.port} (Ctrl+C ends it)", flush=True)
    try:
        viewer.server.sleep_forever()
    except KeyboardInterrupt:
        viewer.server.stop()
    return 0


def open_viewer(job: View) -> Viewer:
    """The running viewer of a job."""
    try:
        import viser  # noqa: F401
    except ImportError as error:
        raise UserError("viser is not installed: `pip install -c constraints.txt viser` brings it") from error
    from factory.ledger.finished_assets import assets_of_files, assets_of_run
    from factory.outputs.viewer import Viewer
    from factory.storage.read_only import open_read_only

    assets = assets_of_run(open_read_only(job.run, job.storage)) if job.run else assets_of_files(job.ply)
    return Viewer(assets, job.host, job.port, job.storage)


if __name__ == "__main__":
    sys.exit(main())
