"""Watch for nodes that drain, as after a spot notice, or are gone: `leaving`, `releasing_stranded_actors`.

Ray Data sends no new work to an actor on a node that is drained. What waits in such an actor is given back between
two rows (see `Stage.groups`), and a row that a vanished node took along does not count as killed (see `Board.deaths`).
Blocks that are bound to an actor wait until it has come up elsewhere; where no other node has room for it, for ever:
such actors are given up (see `Board.stranded`), and their rows are made in the next pass. An idle actor stays on a
drained node for as long as that node lives; where it is the last of its stage it is made to come up elsewhere. A row
that was in work there is made again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from factory.line.cpus import logical_cpus
from factory.line.placement import Node
from recon.user_error import UserError

WATCH_SECONDS = 5.0


def require_calls() -> None:
    """Look for the calls of Ray that have no public name; in a session of Ray.

    Raises:
        RuntimeError: where this version of Ray has other ones: at the start of a run rather than when a node leaves.
    """
    import ray

    try:
        leaving()
        _ray_kill_call()
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(
            f"Ray {ray.__version__} cannot tell which nodes leave, or end an actor by its id ({error}): "
            "install the version of Ray in constraints.txt"
        ) from error


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


def living_nodes() -> list[Node]:
    """The nodes of the cluster that are up."""
    import ray

    return [
        Node(
            cpus=has.get("CPU", 0.0),
            gpus=has.get("GPU", 0.0),
            labels=node.get("Labels") or {},
            id=node["NodeID"],
            host=node["NodeManagerAddress"],
        )
        for node in ray.nodes()
        if node["Alive"]
        for has in [node["Resources"]]
    ]


def this_machine() -> Node:
    """The one node that a Ray of this machine would have."""
    import torch

    return Node(cpus=logical_cpus(), gpus=torch.cuda.device_count(), labels={})


def end_actor(actor: str, for_good: bool) -> None:
    """End an actor of this driver by its id, or else let it come up again, away from drained nodes.

    `ray.kill` wants its handle, which Ray Data keeps to itself.
    """
    import ray

    _ray_kill_call()(ray.ActorID(bytes.fromhex(actor)), for_good)


def _ray_kill_call() -> Callable[[Any, bool], None]:
    """What `ray.kill` calls, with an actor's id and whether it stays ended."""
    from ray._private.worker import global_worker

    worker: Any = global_worker
    return worker.core_worker.kill_actor


@contextmanager
def releasing_stranded_actors(board: Any) -> Iterator[None]:
    """While the block runs, end actors that wait for a place in vain, and bring last ones away from drained nodes."""
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
    from ray.exceptions import RayError

    while not ended.wait(WATCH_SECONDS):
        try:
            stranded: Any = ray.get(board.stranded.remote(), timeout=WATCH_SECONDS)
            for actor, others in stranded.items():
                end_actor(actor, for_good=others)
        except RayError:
            continue
