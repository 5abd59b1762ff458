"""Chains by name: what fits together, what is refused in one sentence, and what follows from one stage more."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from factory.config.settings import DEFAULT_CHAIN, FactoryConfig, fingerprint, preset
from factory.ledger.ledger import ASSETS, Ledger
from factory.line.pool_flags import Pools
from factory.line.settings import LineConfig
from factory.line.summary import is_summed, make_console, summary_table
from factory.outputs import gallery
from factory.pipeline import steps
from factory.prompts.row import Prompt
from factory.prompts.work import PromptWork
from factory.stages.chain import BUILT_IN, pools_of, stages_of, written_columns
from factory.stages.preflight import describe, find_networks, preflight, provenance, weights_of
from factory.storage.store import open_store
from recon.config import QualityConfig
from recon.user_error import UserError

OWN = """
import pyarrow as pa
from factory.ledger.schemas import unpack
from factory.line.stage import Stage
from factory.stages.columns import IMAGE


class Brightness(Stage):
    name = "brightness"
    reads = (IMAGE,)
    writes = (pa.field("brightness", pa.float64(), metadata={"holds": "mean of the reference image, in [0, 1]"}),)

    def process(self, rows):
        for row in rows:
            row["brightness"] = float(unpack(row["image"])[..., :3].mean() / 255)
"""


def run(config: FactoryConfig, out: str, *texts: str) -> Ledger:
    """The line without Ray: one actor of each stage, one table."""
    prompts = [Prompt(prompt_id=f"p{k}", prompt=text, seed=k) for k, text in enumerate(texts)]
    table = PromptWork(prompts=prompts, config=config).table(range(len(prompts)), 1)
    for step in steps(config, out, "r"):
        table = step.actor(**step.arguments)(table)
    ledger = Ledger(open_store(out))
    ledger.publish()
    return ledger


def test_one_file_and_one_line_add_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(OWN.splitlines()) < 40
    (tmp_path / "own_brightness.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    chain = "image,own_brightness:Brightness,examples.stages.visual_hull:VisualHull,score,commit"
    config = FactoryConfig(chain=chain)
    config.image = replace(config.image, size=64, steps=2)
    config.files.turntable_frames = 16
    ledger = run(config, str(tmp_path / "out"), "a red chair")
    [row] = ledger.rows(ASSETS)
    assert 0 < row["brightness"] < 1
    assert row["seconds_brightness"] > 0
    assert row["actor_seconds"] >= row["seconds_brightness"] + row["seconds_hull"]
    console = make_console()
    with console.capture() as shown:
        console.print(summary_table(list(ledger.rows(ASSETS, is_summed))))
    assert "brightness" in shown.get()
    gallery.write_gallery(ledger.store, ledger, config)
    page = ledger.store.get("index.html").decode()
    colour = gallery._COLOURS[list(pools_of(config)).index("brightness")]
    assert f'<b style="background:{colour}"></b>brightness' in page


def test_the_default_chain_writes_every_column_once_and_says_its_unit() -> None:
    columns = written_columns()
    names = [column.name for column in columns]
    assert len(set(names)) == len(names)
    assert [name for name in names if name.startswith("seconds_")] == [
        f"seconds_{name}" for name in list(BUILT_IN)[:-1]
    ]
    assert next(c for c in columns if c.name == "elevation").metadata == {
        b"holds": b"of the turntable's cameras, radians"
    }


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        (
            "image,reconstruct,score,commit",
            "stage reconstruct reads frames, which no stage .* writes; put video",
        ),
        ("image,vidoe,views,reconstruct,score,commit", "no stage 'vidoe'; did you mean video"),
        ("image,video,views,reconstruct,score", "it must end in commit"),
        ("commit,image", "it must end in commit"),
        ("image,image,commit", "two stages called image"),
        ("nowhere:Stage,commit", "nowhere:Stage cannot be imported from"),
        ("json:JSONEncoder,commit", "json:JSONEncoder is no stage; derive it"),
        ("factory.line.stage:Stage,commit", "needs a name of a-z"),
    ],
)
def test_chains_that_do_not_fit_are_refused_in_one_sentence(chain: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        preflight(FactoryConfig(chain=chain))


def test_a_column_of_another_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = type("Odd", (BUILT_IN["views"],), {"name": "odd", "writes": (pa.field("elevation", pa.string()),)})
    monkeypatch.setitem(BUILT_IN, "odd", odd)
    with pytest.raises(ValueError, match=r"stage odd has elevation as string, stage views as double"):
        stages_of("image,video,views,odd,reconstruct,score,commit")


def test_pools_start_from_the_stage_and_unknown_ones_are_refused() -> None:
    config = FactoryConfig(line=LineConfig(pools=Pools(all={"cpus": 2.0}, video={"cpus": 3.0, "batch": 4})))
    pools = pools_of(config)
    assert (pools["video"].cpus, pools["video"].batch, pools["views"].cpus) == (3.0, 4, 2.0)
    assert pools["reconstruct"].actors == BUILT_IN["reconstruct"].pool.actors
    with pytest.raises(ValueError, match=r"line\.pools names 'vidoe', which is no stage; did you mean video"):
        pools_of(FactoryConfig(line=LineConfig(pools=Pools(vidoe={"actors": 2}))))
    with pytest.raises(ValueError, match=r"line\.pools\.video: max_actors is 1; it must be at least actors = 2"):
        pools_of(FactoryConfig(line=LineConfig(pools=Pools(video={"actors": 2, "max_actors": 1}))))


def test_another_chain_is_another_run_and_the_default_is_as_before() -> None:
    assert fingerprint(FactoryConfig()) == fingerprint(FactoryConfig(chain=DEFAULT_CHAIN))
    assert fingerprint(FactoryConfig(chain="image,commit")) != fingerprint(FactoryConfig())


def test_actors_get_their_own_settings_only() -> None:
    chain = {step.actor.name: step.arguments["config"] for step in steps(preset("pocket"), "out", "r")}
    assert vars(chain["video"]).keys() == {"video"}
    assert vars(chain["reconstruct"]).keys() == {"video", "views", "orbit", "fit", "refine", "yields", "mesh"}


def test_networks_are_told_once_each_with_their_licences() -> None:
    needs = find_networks(preset("pocket"))
    answer = describe(needs).split(", ")
    assert [name.split()[0] for name in answer] == ["image", "recon", "video", "judge"]
    assert all(name.endswith("(apache-2.0)") for name in answer)
    hull = FactoryConfig(chain="image,examples.stages.visual_hull:VisualHull,score,commit")
    assert "video" not in describe(find_networks(hull))
    rows = {row["name"]: row for row in provenance(needs)}
    assert rows.keys() == {"image", "video", "autoencoder", "text_encoder", "recon", "judge"}
    assert {row["license"] for row in rows.values()} == {"apache-2.0"}
    assert all(str(row["revision"]).startswith("sha256:") for row in rows.values())


def test_a_gate_in_a_chain_that_judges_nothing_is_refused() -> None:
    config = preset("pocket")
    config.quality = QualityConfig(min=0.5)
    preflight(config)
    with pytest.raises(UserError, match=r"quality\.min is 0\.5 and no stage of image,video,views,reconstruct,commit"):
        preflight(replace(config, chain="image,video,views,reconstruct,commit"))


def test_a_missing_masker_is_told_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    config = preset("pocket")
    config.views = replace(config.views, masks="isnet")
    with pytest.raises(RuntimeError, match=r"isnet.* is not there: im3d weights pull isnet .* --views\.masks u2netp"):
        preflight(config)
    config.views = replace(config.views, masks="u2netp")
    preflight(config)
    assert weights_of(find_networks(config))["masks"].startswith("sha256:")


def test_stages_are_declared_without_loading_what_they_compute_with() -> None:
    code = "import sys, factory.stages.chain; print(sorted({'torch', 'numba', 'diffusers', 'ray'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("column", "kind"), [("prompt", "string"), ("source_image", "large_binary"), ("cost_dollars", "float64")]
)
def test_a_stage_may_not_write_a_column_of_the_line(
    column: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"own_{column}"
    text = OWN.replace('pa.field("brightness", pa.float64()', f'pa.field("{column}", pa.{kind}()')
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=f"stage brightness writes {column}, which the line itself writes"):
        stages_of(f"image,{module}:Brightness,video,views,reconstruct,score,commit")
