"""Start a real S3 server on this machine (SeaweedFS), for tests and benchmarks: `s3_server`."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WEED = Path(sys.executable).with_name("weed")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "anyany12",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
BUCKET = "test"
START_ATTEMPTS = 3


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def s3_server(folder: Path, seconds: float = 40.0) -> Iterator[str]:
    """Run the server with an empty bucket `test` and its data in `folder`; yields its address.

    It knows one pair of keys, CREDENTIALS; this function sets nothing in the environment.
    """
    endpoint, process = _started(folder, seconds)
    try:
        yield endpoint
    finally:
        process.kill()
        process.wait()


def _started(folder: Path, seconds: float) -> tuple[str, subprocess.Popen]:
    """A server that answers. Two that start at once may want the same inner ports: then one ends, and tries again."""
    flags = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false", f"-bucket={BUCKET}"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for attempt in range(START_ATTEMPTS):
        port, data = free_port(), folder / f"start-{attempt}"
        data.mkdir(parents=True)
        command = [str(WEED), "mini", f"-dir={data}", f"-s3.port={port}", *flags]
        process = subprocess.Popen(command, cwd=data, env=os.environ | CREDENTIALS, **quiet)
        if _is_ready(f"http://127.0.0.1:{port}", process, seconds):
            return f"http://127.0.0.1:{port}", process
        process.kill()
        process.wait()
    raise TimeoutError(f"the S3 server did not start in {folder} in {START_ATTEMPTS} attempts of {seconds:.0f} s")


def _is_ready(endpoint: str, process: subprocess.Popen, seconds: float) -> bool:
    """Whether the server takes an object before the time is over or its process ends."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "anyany12", "region_name": "us-east-1"}
    once = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5)
    client = boto3.client("s3", endpoint_url=endpoint, config=once, **keys)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            return True
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    return False
