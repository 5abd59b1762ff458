"""Protocols: their cameras against the formulas of their sources, their pooling, and what they refuse."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from eval.protocols import PROTOCOLS, Protocol, cameras_of, places, pooled, protocol_of
from recon.cameras import OrbitConfig, turntable


def test_our_protocol_is_the_turntable_of_the_line() -> None:
    protocol = Protocol(num_views=5, size=32, fov_degrees=30.0, distance=4.0)
    for own in (0.1, None):
        ours = turntable(0.3 if own is None else own, 32, OrbitConfig(num_views=5, fov_degrees=30.0, distance=4.0))
        cameras = cameras_of(protocol, own)
        assert torch.allclose(cameras.viewmats, ours.viewmats, atol=1e-6)
        assert torch.allclose(cameras.Ks, ours.Ks)
        assert cameras.size == 32


def test_trellis_looks_from_four_sides_at_pitch_30() -> None:
    protocol = PROTOCOLS["trellis"]
    cameras = cameras_of(protocol, 1.2)  # an asset's own elevation changes nothing
    centres = -(cameras.viewmats[:, :3, :3].transpose(1, 2) @ cameras.viewmats[:, :3, 3:])[..., 0]
    yaw, pitch, radius = np.radians([0, 90, 180, 270]), math.radians(30), 2.0
    theirs = radius * np.stack([np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), 0 * yaw + np.sin(pitch)], -1)
    assert centres.numpy() == pytest.approx(theirs[:, [0, 2, 1]] / 0.5, abs=1e-5)  # z up; half sides of the cube
    assert cameras.Ks[0, 0, 0].item() == pytest.approx(256 / math.tan(math.radians(20)))
    assert (protocol.views, protocol.background, protocol.extent) == (4, 0.0, "cube")


def test_gpteval3d_closes_its_turn_as_threestudio_does() -> None:
    found = places(PROTOCOLS["gpteval3d"])
    azimuth = np.degrees(np.arctan2(found[:, 0], found[:, 2])) % 360
    assert len(found) == 120
    assert azimuth[:3] == pytest.approx([0, 360 / 119, 720 / 119])
    assert found[-1] == pytest.approx(found[0])
    assert np.degrees(np.arcsin(found[:, 1])) == pytest.approx(15)


def test_t3bench_looks_from_everywhere_at_five_fields_of_view() -> None:
    protocol = PROTOCOLS["t3bench"]
    cameras = cameras_of(protocol)
    assert len(cameras) == protocol.views == 810
    focal = cameras.Ks[:5, 0, 0].numpy()
    assert 2 * np.arctan(256 / focal) == pytest.approx([np.pi / 3, np.pi / 4, np.pi / 5, np.pi / 6, np.pi / 7.5])
    assert torch.equal(cameras.viewmats[0], cameras.viewmats[4])
    turns = cameras.viewmats[:, :3, :3]
    assert torch.allclose(turns @ turns.transpose(1, 2), torch.eye(3).expand_as(turns), atol=1e-6)
    assert torch.allclose(torch.linalg.det(turns), torch.ones(810), atol=1e-5)
    assert cameras.viewmats[:, :3, 3].numpy() == pytest.approx(np.tile([0, 0, 2.2], (810, 1)))
    heights = np.asarray(places(protocol))[:, 1]
    assert heights.max() == pytest.approx(1)  # the poles are among them


def test_the_best_place_is_t3benchs() -> None:
    import trimesh

    protocol = PROTOCOLS["t3bench"]
    values = np.random.default_rng(0).normal(size=810)
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=2.2)
    scores = {place: max(values[5 * place : 5 * place + 5]) for place in range(len(sphere.vertices))}
    for _ in range(3):
        smooth = {}
        for place in scores:
            near = sphere.vertex_neighbors[place]
            smooth[place] = (scores[place] + sum(scores[other] for other in near)) / (len(near) + 1)
        scores = smooth
    assert pooled(values, protocol) == pytest.approx(max(scores.values()))
    assert pooled(values, Protocol()) == pytest.approx(values.mean())


def test_every_protocol_states_its_source_and_differs() -> None:
    statements = [asdict(protocol) for protocol in PROTOCOLS.values()]
    assert all(one["source"] and one["name"] == name for name, one in zip(PROTOCOLS, statements))
    assert len({str({**one, "name": "", "source": ""}) for one in statements}) == len(PROTOCOLS)


def test_published_protocols_are_fixed() -> None:
    assert protocol_of("trellis", size=512, up="z").up == "z"
    assert protocol_of("im3d", size=64, num_views=8).size == 64
    with pytest.raises(ValueError, match=r"protocol trellis says size 512, not 128; leave it out, or take --protocol"):
        protocol_of("trellis", size=128)
    with pytest.raises(ValueError, match=r"'treli' not found; available: im3d, trellis, t3bench, gpteval3d"):
        protocol_of("treli")
