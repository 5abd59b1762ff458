"""The house itself: where packages come from, and which way they may import."""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["factory", "jobs", "model", "recon", "eval"]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", PACKAGES)
def test_package_resolves_inside_the_checkout(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__file__ is not None
    assert Path(package.__file__).resolve() == ROOT / name / "__init__.py"


def test_import_contracts_are_kept() -> None:
    result = run(str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


def test_no_imports_go_in_a_circle_and_those_inside_functions_count() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    assert graph.direct_import_exists(importer="model.image", imported="model.pocket.image")  # in a function
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()


def test_configs_import_without_torch() -> None:
    code = "import sys, model.config, eval.config; print('torch' in sys.modules, 'diffusers' in sys.modules)"
    assert run(sys.executable, "-c", code).stdout.split() == ["False", "False"]


def test_constraints_are_exact_and_name_no_place() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 and "@" not in line and "/" not in line and "+" not in line for line in lines)
    assert {"torch==2.13.0", "torchvision==0.28.0"} <= set(lines)


def test_no_pickled_weights_are_tracked() -> None:
    tracked = run("git", "ls-files").stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    assert not [name for name in tracked if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]


def modules() -> dict[str, ast.Module]:
    """Every module of the product by its dotted name, parsed."""
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    return {name_of(path): ast.parse(path.read_text()) for path in files}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_entry_point(name: str, tree: ast.Module) -> bool:
    """What a user starts: the jobs, and modules with `if __name__ == "__main__"`."""
    named = (node.test for node in tree.body if isinstance(node, ast.If))
    return name.split(".")[0] == "jobs" or any("__name__ == '__main__'" in ast.unparse(test) for test in named)


def imported(tree: ast.Module) -> set[str]:
    """Every dotted name that a module imports anywhere, or names in a text of its own or as "package.module:Class"."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value.partition(":")[0])
    return found


def test_no_module_is_reached_by_tests_alone() -> None:
    trees = modules()
    reached, ahead = set[str](), [name for name, tree in trees.items() if is_entry_point(name, tree)]
    while ahead:
        name = ahead.pop()
        if name not in reached:
            reached |= {name}
            ahead += [found for found in imported(trees[name]) if found in trees]
    packages = {name for name in trees if (ROOT / name.replace(".", "/")).is_dir()}
    assert sorted(trees.keys() - reached - packages) == []


RIDDLES = {"A", "An", "How", "The", "What", "Where", "Whether", "Which", "Who"}


def first_lines() -> dict[str, str]:
    """The first line of every module that holds code, by dotted name; of packages those that say something."""
    found = {name: ast.get_docstring(tree) for name, tree in modules().items() if tree.body}
    return {name: (text or "").partition("\n")[0] for name, text in found.items()}


def test_modules_begin_with_what_they_do_and_the_name_of_it() -> None:
    packages = {name for name in first_lines() if (ROOT / name.replace(".", "/")).is_dir()}
    nameless = [name for name, line in first_lines().items() if "`" not in line and name not in packages]
    riddles = [name for name, line in first_lines().items() if not line or line.split()[0] in RIDDLES]
    assert (nameless, riddles) == ([], [])
