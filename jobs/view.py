"""Look at assets in the browser: `im3d view --run DIR`, then open the address that it prints.

Exit code: 0 when it was stopped, 2 when nothing could be shown.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from jobs.settings import guarded

if TYPE_CHECKING:
    from factory.outputs.viewer import Viewer


@dataclass(kw_only=True, slots=True)
class View:
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
            raise ValueError("give either --run with the folder of a run or --ply with PLY files")
        if not 0 < self.port < 65536:
            raise ValueError(f"port is {self.port}; it must lie in 1..65535")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, serve until Ctrl+C; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(tyro.cli(View, args=arguments, prog="im3d view")))


def run(job: View) -> int:
    """Serve until Ctrl+C; returns the exit code. Raises ValueError for the user."""
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
        raise RuntimeError("viser is not installed: `pip install -c constraints.txt viser` brings it") from error
    from factory.ledger.finished_assets import assets_of_files, assets_of_run
    from factory.outputs.viewer import Viewer

    assets = assets_of_run(job.run) if job.run else assets_of_files(job.ply)
    return Viewer(assets, job.host, job.port)


if __name__ == "__main__":
    sys.exit(main())
