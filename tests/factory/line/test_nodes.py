"""The calls of Ray that have no public name are missed at the start of a line where they are not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from ray._private.state import GlobalState
from ray._private.worker import global_worker

from factory.config.settings import FactoryConfig
from factory.ledger.ledger import Ledger
from factory.line.run import run_line
from factory.line.settings import LineConfig
from factory.prompts.row import Prompt
from factory.prompts.work import PromptWork
from factory.storage.store import open_store


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    ray.shutdown()  # one that another test of this process left open
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", object_store_memory=100 << 20)
    yield
    ray.shutdown()


class Bare:
    """A core worker of another version."""


@pytest.mark.parametrize("gone", ["kill_actor", "get_draining_nodes"])
def test_a_line_does_not_start_where_a_call_is_missing(gone: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    if gone == "kill_actor":
        monkeypatch.setattr(global_worker, "core_worker", Bare())
    else:
        monkeypatch.delattr(GlobalState, gone)
    config = FactoryConfig(line=LineConfig(address="auto"))
    work = PromptWork(prompts=[Prompt(prompt_id="p", prompt="x", seed=0)], config=config)
    with pytest.raises(RuntimeError, match=rf"Ray {ray.__version__} cannot .*{gone}.*constraints\.txt"):
        run_line(work, [], config.line, Ledger(open_store(str(tmp_path))))
