"""Nodes that leave: drained, as when a spot notice has come (`ray drain-node`), or gone.

Ray Data sends no new work to an actor on a node that is drained. What waits in such an actor is given back between
two rows (see `Stage.groups`), and a row that a vanished node took along does not count as killed (see `Board.deaths`).
"""

from __future__ import annotations


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
