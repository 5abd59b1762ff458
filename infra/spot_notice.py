"""Tell Ray two minutes before AWS takes this spot node back, so that the line moves its rows: `main`.

    python infra/spot_notice.py &

Runs beside Ray on every spot node until the notice comes; needs nothing but Ray itself.
"""

from __future__ import annotations

import subprocess
import time
import urllib.request

METADATA = "http://169.254.169.254/latest"
POLL_SECONDS, TOKEN_SECONDS, TIMEOUT_SECONDS = 5.0, 300, 2.0
LEFT_SECONDS = 110
"""What is left of the two minutes once the notice is read."""


def has_notice(metadata: str = METADATA) -> bool:
    """Whether the instance is to be stopped or terminated; False too where the metadata service does not answer."""
    ask = urllib.request.Request(
        f"{metadata}/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
    )
    try:
        token = urllib.request.urlopen(ask, timeout=TIMEOUT_SECONDS).read().decode()
        notice = urllib.request.Request(
            f"{metadata}/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
        )
        return urllib.request.urlopen(notice, timeout=TIMEOUT_SECONDS).status == 200
    except OSError:  # 404 until there is a notice
        return False


def drain_command() -> list[str]:
    """Ray's own command for the node that it runs on."""
    what = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot notice"]
    return ["ray", "drain-node", *what, "--deadline-remaining-seconds", str(LEFT_SECONDS)]


def main() -> None:
    """Wait for the notice, then drain the node; tried again until Ray accepts."""
    while not has_notice():
        time.sleep(POLL_SECONDS)
    while subprocess.run(drain_command()).returncode:
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
