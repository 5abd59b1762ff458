"""`ray job submit` against a cluster of this machine: the checkout travels, and a stopped run is taken up again."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")
START_ATTEMPTS, START_SECONDS, JOB_SECONDS, COUNT = 3, 180, 800, 120
CHEAP = "--image.steps 1 --video.steps 1 --fit.iterations 10 --fit.num-points 500 --refine.rounds-at "
CHEAP += "--views.elevation 0.3 --files.turntable-frames 16 --line.pools reconstruct=1"
TOKEN = secrets.token_hex(32)
ENVIRONMENT = os.environ | {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",  # jobs begin with `python`, as in the images
}
ENVIRONMENT.pop("RAY_ADDRESS", None)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the dashboard of a cluster of one node, which ends with the tests of this file alone."""
    log = tmp_path_factory.mktemp("cluster") / "log"
    for _ in range(START_ATTEMPTS):
        with head_node(log) as address:
            if address:
                yield address
                return
    pytest.fail(f"the cluster did not start: {log.read_text()[-2000:]}")


@contextmanager
def head_node(log: Path) -> Iterator[str | None]:
    """A head node and the address of its dashboard; None where it gave up, as on a very busy machine."""
    gcs, http, client, agent, agent_grpc = free_ports(5)
    folder = Path("/tmp") / f"im3d-{os.getpid()}-{http}"  # sockets lie in it, whose paths may have 107 characters
    command = [RAY, "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={http}", "--num-cpus=8"]
    command += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--dashboard-agent-grpc-port={agent_grpc}", f"--temp-dir={folder}", "--object-store-memory=200000000"]
    with log.open("wb") as stream:
        head = subprocess.Popen(
            command, env=ENVIRONMENT, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{http}"

    def is_up() -> bool:
        return "Ray runtime started" in log.read_text() and answers(address)

    try:
        wait_for(lambda: is_up() or head.poll() is not None, START_SECONDS)
        yield address if head.poll() is None else None
    finally:
        head.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            head.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def ask(address: str, token: str = TOKEN) -> Any:
    """What the dashboard answers, as JSON."""
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    return json.load(urllib.request.urlopen(request, timeout=60))


def answers(address: str) -> bool:
    try:
        return isinstance(ask(f"{address}/api/jobs/"), list)
    except OSError:
        return False


def wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"nothing came in {seconds} s")
        time.sleep(0.3)


def ray_job(dashboard: str, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [RAY, "job", verb, "--address", dashboard, *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=JOB_SECONDS)


def submit(dashboard: str, name: str, entrypoint: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Submit the checkout, without its documents, and wait unless a flag says otherwise."""
    settings = json.dumps({"env_vars": {"OMP_NUM_THREADS": "1"}, "excludes": ["/docs/"]})
    flags = ("--working-dir", ".", "--runtime-env-json", settings, "--submission-id", name, *flags)
    return ray_job(dashboard, "submit", *flags, "--", *entrypoint.split())


def ended(dashboard: str, name: str) -> dict[str, Any]:
    """The job's details once it has ended."""
    wait_for(lambda: info(dashboard, name)["status"] in ("SUCCEEDED", "FAILED", "STOPPED"), JOB_SECONDS)
    return info(dashboard, name)


def info(dashboard: str, name: str) -> dict[str, Any]:
    return ask(f"{dashboard}/api/jobs/{name}")


def names(out: Path, folder: str = "assets") -> list[str]:
    return sorted(
        name for part in (out / folder).glob("*.parquet") for name in pq.read_table(part)["prompt_id"].to_pylist()
    )


def test_a_run_of_the_real_line_from_the_package(dashboard: str, tmp_path: Path) -> None:
    rows = [{"prompt_id": "cup", "prompt": "a red cup"}, {"prompt_id": "empty", "prompt": ""}]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    entrypoint = f"python tests/jobs/where.py {tmp_path}/found.json jobs.generate --line.address auto {CHEAP}"
    done = submit(dashboard, "real", f"{entrypoint} --prompts {tmp_path}/prompts.jsonl --out {tmp_path}/out")
    assert "1 of 2 prompts have an asset, 1 are dead letters" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    assert done.returncode == 1
    assert info(dashboard, "real")["driver_exit_code"] == 1  # a row could not be made
    assert names(tmp_path / "out") == ["cup"]
    assert names(tmp_path / "out", "dead_letters") == ["empty"]
    assert list((tmp_path / "out" / "files").glob("cup-*/asset.ply"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert "working_dir_files" in found["factory"]
    assert {"jobs", "model", "constraints.txt"} <= set(found["files"])
    assert not {"docs", ".git", ".venv"} & set(found["files"])


def test_a_mistake_is_exit_code_2_and_one_sentence_in_the_log(dashboard: str) -> None:
    done = submit(dashboard, "wrong", "python -m jobs.generate --line.address auto --prompts none.jsonl --out /nowhere")
    assert done.returncode == 1
    assert (info(dashboard, "wrong")["status"], info(dashboard, "wrong")["driver_exit_code"]) == ("FAILED", 2)
    assert "error: none.jsonl: no such file" in ray_job(dashboard, "logs", "wrong").stdout


def test_a_stopped_run_is_taken_up_by_the_next(dashboard: str, tmp_path: Path) -> None:
    entrypoint = f"python -m benchmarks.slow_line {tmp_path} {COUNT} auto"
    assert submit(dashboard, "first", entrypoint, "--no-wait").returncode == 0
    wait_for(lambda: list(tmp_path.glob("files/*/second")), JOB_SECONDS)
    assert ray_job(dashboard, "stop", "first").returncode == 0
    assert ended(dashboard, "first")["status"] == "STOPPED"
    kept = {path: path.read_bytes() for path in tmp_path.glob("files/*/second")}
    assert 0 < len(kept) < COUNT
    done = submit(dashboard, "second", entrypoint)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert names(tmp_path) == sorted(f"p{number}" for number in range(COUNT))
    assert all(path.read_bytes() == data for path, data in kept.items())


def test_nobody_gets_in_without_the_token(dashboard: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(f"{dashboard}/api/jobs/", token="0" * 64)
    assert refused.value.code in (401, 403)
