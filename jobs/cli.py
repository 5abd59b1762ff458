"""Start a job: `im3d JOB [flags]` is `python -m jobs.JOB [flags]`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

JOBS = {
    "generate": "prompts in, 3D assets out",
    "prompts": "prompts in, remarks on them out: motion verbs, several objects, length, repeats",
    "doctor": "what this machine can run, and what to do about each miss",
    "weights": "public networks, listed, pulled into a folder or bucket, checked",
    "retry": "dead letters of a run in, 3D assets out",
    "check": "a run in, damaged tables and files out; --repair makes them again",
    "sweep": "files that no row of a run names are removed",
    "render": "3D assets in, turntable renders out (training data)",
    "evaluate": "3D assets in, CLIP scores and their statistics out",
    "export": "3D assets in, spz, sog, splat, html, GLB, USD or training data out",
    "dataset": "runs in, one data set out: chosen, deduplicated, split, with card and Croissant",
    "report": "a run in, a page about it out: scores, sheets, failures, cost, search",
    "view": "3D assets in, a page in the browser out: orbit them",
    "study": "two or more runs in, a page for human raters and their win rates out",
    "ablate": "3D assets in, the paper's ablations out: tables and a picture sheet",
    "curate": "turntable renders in, which assets to train on out",
    "encode": "turntable renders in, latents of the pocket autoencoder out: faster training",
    "finetune": "turntable renders in, weights of a trained model out",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a job; returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: im3d JOB [flags]\n\njobs:")
        print("\n".join(f"  {name:<10} {what}" for name, what in JOBS.items()))
        print("\nim3d JOB --help lists the flags of a job.")
        return 0 if arguments else 2
    if arguments[0] not in JOBS:
        print(f"error: job {arguments[0]!r} not found. Available: {', '.join(JOBS)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"jobs.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
