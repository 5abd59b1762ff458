"""Nodes that leave: drained, as when a spot notice has come (`ray drain-node`), or gone.

Ray Data sends no new work to an actor on a node that is drained. What waits in such an actor is given back between
two rows (see `Stage.groups`), and a row that a vanished node took along does not count as killed (see `Board.deaths`).
Blocks that are bound to an actor wait until it has come up elsewhere; where no other node has room for it, for ever:
such actors are given up (see `Board.stranded`), and their rows are made in the next pass.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WATCH_SECONDS = 5.0


def leaving() -> set[str]:
    """The ids of the nodes that are being drained. Ray has no public name for it; Ray Data asks the same."""
    from ray._private.state import state

    return set(state.get_draining_nodes())


def is_leaving(node: str) -> bool:
    """Whether the node is being drained."""
    return node in leaving()


def is_gone(node: str) -> bool:
    """Whether the node is being drained or is dead, as far as the cluster knows."""
    import ray

    return is_leaving(node) or not any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())


@contextmanager
def giving_up_stranded(board: Any) -> Iterator[None]:
    """While the block runs, end the actors that wait for a place in vain."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(board, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(board: Any, ended: threading.Event) -> None:
    import ray
    from ray._private.worker import global_worker
    from ray.exceptions import RayError

    worker: Any = global_worker
    while not ended.wait(WATCH_SECONDS):
        try:
            for actor in ray.get(board.stranded.remote(), timeout=WATCH_SECONDS):
                # `ray.kill` of an actor whose handle Ray Data holds
                worker.core_worker.kill_actor(ray.ActorID(bytes.fromhex(actor)), True)
        except RayError:
            continue
