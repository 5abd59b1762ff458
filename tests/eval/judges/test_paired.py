"""LPIPS and DISTS as judges: equal to their packages on the same weights, and what they refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eval.judges.judge import Subject
from eval.judges.paired import PairedJudge, dists_judge, lpips_judge
from recon.torchvision_shim import import_torchvision


def trunk_of(network: str) -> dict[str, torch.Tensor]:
    models = import_torchvision().models
    torch.manual_seed(3)
    made = models.vgg16(weights=None) if network == "vgg" else models.alexnet(weights=None)
    return {f"features.{name}": value.detach() for name, value in made.features.state_dict().items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trunks")
    for network in ("vgg", "alex"):
        save_file(trunk_of(network), folder / f"{network}.safetensors")
    return {network: folder / f"{network}.safetensors" for network in ("vgg", "alex")}


@pytest.fixture(scope="module")
def judges(files: dict[str, Path]) -> dict[str, PairedJudge]:
    return {
        "dists": dists_judge(files["vgg"], "cpu"),
        "lpips_vgg": lpips_judge("vgg", files["vgg"], "cpu"),
        "lpips_alex": lpips_judge("alex", files["alex"], "cpu"),
    }


def pictures(count: int, size: int = 48, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return coarse.repeat(size // 6, 1).repeat(size // 6, 2)


def tensor(views: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255


def test_dists_equals_the_package(judges: dict[str, PairedJudge], monkeypatch: pytest.MonkeyPatch) -> None:
    models = import_torchvision().models
    made = models.vgg16(weights=None)
    made.load_state_dict(trunk_of("vgg"), strict=False)
    monkeypatch.setattr(models, "vgg16", lambda pretrained: made)
    from DISTS_pytorch import DISTS

    package = DISTS(load_weights=False)
    state: Any = torch.load(Path(__import__("DISTS_pytorch").__path__[0], "weights.pt"), weights_only=True)
    package.alpha.data, package.beta.data = state["alpha"], state["beta"]
    ours, theirs = pictures(5), pictures(5, seed=1)
    expected = package(tensor(ours), tensor(theirs)).detach().numpy()
    found = judges["dists"].views([Subject(pairs={"frames": (ours, theirs)})])[0]["dists_renders_frames"]
    assert found == pytest.approx(expected, abs=1e-5)
    assert expected.min() > 0.001


def test_lpips_equals_the_package(judges: dict[str, PairedJudge]) -> None:
    import lpips

    ours, theirs = pictures(3), pictures(3, seed=1)
    for network in ("vgg", "alex"):
        package = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
        trunk = trunk_of(network)
        package.net.load_state_dict({k: trunk[f"features.{k.split('.', 1)[1]}"] for k in package.net.state_dict()})
        expected = package(2 * tensor(ours) - 1, 2 * tensor(theirs) - 1).detach().flatten().numpy()
        found = judges[f"lpips_{network}"].views([Subject(pairs={"truth": (ours, theirs)})])
        assert found[0][f"lpips_{network}_renders_truth"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["dists", "lpips_vgg", "lpips_alex"])
def test_a_score_is_the_same_alone_and_among_33(judges: dict[str, PairedJudge], name: str) -> None:
    judge = judges[name]
    small, large = (pictures(33), pictures(33, seed=1)), (pictures(2, 60), pictures(2, 60, seed=1))
    subjects = [Subject(pairs={"frames": small, "truth": large}), Subject(), Subject(pairs={"frames": large})]
    first, nothing, last = judge.views(subjects)
    assert nothing == {}
    alone = [
        judge.views([Subject(pairs={"frames": (a[None], b[None])})])[0][f"{name}_renders_frames"][0]
        for a, b in zip(*small)
    ]
    assert first[f"{name}_renders_frames"] == pytest.approx(alone, abs=1e-3)
    assert first[f"{name}_renders_truth"] == pytest.approx(last[f"{name}_renders_frames"], abs=1e-3)
    same = judge.views([Subject(pairs={"frames": (small[0], small[0])})])[0][f"{name}_renders_frames"]
    assert same == pytest.approx(np.zeros(33), abs=1e-4)
    assert first[f"{name}_renders_frames"].min() > 0.01
    assert set(first) <= set(judge.columns())


def test_revisions_are_those_of_the_files(files: dict[str, Path], judges: dict[str, PairedJudge]) -> None:
    assert judges["lpips_vgg"].revision == lpips_judge("vgg", files["vgg"], "cpu").revision
    assert len({judge.revision for judge in judges.values()}) == 3
    assert all(judge.revision.startswith("sha256:") for judge in judges.values())


def test_what_cannot_be_judged_is_named(files: dict[str, Path], judges: dict[str, PairedJudge], tmp_path: Path) -> None:
    for pair, message in [
        ((pictures(2), pictures(2, 60)), r"2 re-renders of 48x48 with 2 frames of 60x60; see --num-views and --size"),
        ((pictures(2), pictures(3)), r"2 re-renders of 48x48 with 3 frames"),
        ((pictures(2, 12), pictures(2, 12)), r"lpips_alex cannot judge pictures of 12 pixels; render at 31 or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            judges["lpips_alex"].views([Subject(pairs={"frames": pair})])
    with pytest.raises(ValueError, match=r"gone\.safetensors is no file; give the weights of LPIPS 'vgg'"):
        lpips_judge("vgg", tmp_path / "gone.safetensors", "cpu")
    with pytest.raises(ValueError, match="no ImageNet weights of VGG16: features"):
        dists_judge(files["alex"], "cpu")
