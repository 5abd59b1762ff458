"""Parse pools as a command line names them, `video=2x0.5gpu,batch=4`: `parse_pools` makes `Pools` of them.

Example:
    parse_pools(["reconstruct=4-16x1cpu,0.5gpu", "video=2,row_timeout=600"])
    # {"reconstruct": {"actors": 4, "max_actors": 16, "cpus": 1.0, "gpus": 0.5},
    #  "video": {"actors": 2, "row_timeout": 600}}
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from factory.line.placement import Pool
from recon.user_error import UserError

ALL = "all"
"""Instead of a stage's name: every stage, before what is set for it alone."""
_PART = re.compile(
    r"(?:(?P<actors>\d+)(?:-(?P<most>\d+))?)?(?:(?P<times>x)?(?P<share>\d+(?:\.\d+)?)(?P<kind>cpu|gpu)s?)?"
)
_FORM = (
    "write STAGE=ACTORS[-MOST][xSHAREcpu|gpu][,SETTING=VALUE...], as video=2x0.5gpu or reconstruct=4-16x1cpu,batch=2"
)


class Pools(dict[str, dict[str, Any]]):
    """By stage, or for `all`, the settings of its `Pool` that differ from the stage's own default."""


def merged(base: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any]]) -> Pools:
    """`base` with these settings changed, one by one."""
    return Pools({name: {**base.get(name, {}), **changes.get(name, {})} for name in {**base, **changes}})


def parse_pools(specs: Iterable[str]) -> Pools:
    """Pools in the compact form; raises UserError, for anything else."""
    pools = Pools()
    for spec in specs:
        name, equals, rest = spec.partition("=")
        if not (name and equals and rest):
            raise UserError(f"line.pools has {spec!r}; {_FORM}")
        settings = pools.setdefault(name, {})
        for part in rest.split(","):
            found = _setting(part, spec) if "=" in part else _size(part, spec)
            labels = (*settings.get("labels", ()), *found.get("labels", ()))
            settings |= found | ({"labels": labels} if labels else {})
    return pools


def compact(pools: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The pools as `parse_pools` reads them."""
    return [f"{name}={','.join(_parts(settings))}" for name, settings in pools.items() if settings]


def _parts(settings: Mapping[str, Any]) -> Iterable[str]:
    left = dict(settings)
    if "actors" in left:
        most = left.pop("max_actors", None)
        yield f"{left.pop('actors')}" + (f"-{most}" if most is not None else "")
    for kind in ("cpu", "gpu"):
        if f"{kind}s" in left:
            yield f"{left.pop(f'{kind}s'):g}{kind}"
    for key, value in left.items():
        if key == "labels":
            yield from (f"labels={label}" for label in value)
        else:
            yield f"{key}={'none' if value is None else value}"


def _size(part: str, spec: str) -> dict[str, Any]:
    """Actors, and what each holds: "2", "2-8", "0.5gpu", "2x0.5gpu"."""
    found = _PART.fullmatch(part)
    counted = found and found["actors"] is not None
    if not found or not part or bool(found["times"]) != bool(counted and found["kind"]):
        raise UserError(f"line.pools has {part!r} in {spec!r}; {_FORM}")
    sizes: dict[str, Any] = {"actors": int(found["actors"])} if counted else {}
    if found["most"]:
        sizes["max_actors"] = int(found["most"])
    return sizes | ({f"{found['kind']}s": float(found["share"])} if found["kind"] else {})


def _setting(part: str, spec: str) -> dict[str, Any]:
    """One "key=value"; the key is checked against the settings of a pool, several labels are given one by one."""
    key, _, text = part.partition("=")
    names = [field.name for field in fields(Pool)]
    if key not in names:
        near = difflib.get_close_matches(key, names, 1)
        raise UserError(f"line.pools has {key!r} in {spec!r}; " + (f"did you mean {near[0]}?" if near else _FORM))
    if key == "labels":
        return {"labels": (text,)}
    if text == "none":
        return {key: None}
    try:
        return {key: int(text) if text.isdecimal() else float(text)}
    except ValueError as error:
        raise UserError(f"line.pools has {key}={text!r} in {spec!r}; {key} is a number") from error
