"""Every relative link of every page leads somewhere, and the files that a page names hold what it says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")


def pages() -> list[Path]:
    return sorted(
        path for path in ROOT.rglob("*.md") if not {".venv", "runs", "build", "node_modules"} & set(path.parts)
    )


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    missing = []
    for link in LINK.findall(page.read_text()):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            missing.append(link)
    return missing


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_wrong_heading_and_a_missing_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# One heading\n")
    (tmp_path / "a.md").write_text("[1](b.md#one-heading) [2](b.md#another) [3](c.md)\n")
    assert broken(tmp_path / "a.md") == ["b.md#another", "c.md"]


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def changes() -> list[tuple[str, str, str]]:
    """The rows of architecture.md that say which file a change is made in: change, file, name in it."""
    table = (ROOT / "docs/architecture.md").read_text().partition("| change | file | there |")[2].partition("\n\n")[0]
    return re.findall(r"^\| (.+) \| `(.+)` \| `(.+)` \|$", table, re.MULTILINE)


def test_the_table_of_changes_is_read() -> None:
    assert len(changes()) == 10


@pytest.mark.parametrize(("change", "file", "name"), changes(), ids=lambda text: text.rpartition("/")[2])
def test_each_change_has_its_file(change: str, file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assigned = {target.id for node in tree.body if isinstance(node, ast.Assign)
                for target in node.targets if isinstance(target, ast.Name)}  # fmt: skip
    defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert name in assigned | defined, f"{change}: {file} has no {name}"
