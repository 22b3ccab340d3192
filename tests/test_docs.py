"""Links and paths in the documentation exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)?(#[^)\s]+)?\)")


def anchors(page):
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {target} does not exist"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name}: {target}{anchor} is no heading"


def test_pages_that_code_and_studies_name_exist():
    folders = ("oracles", "harness", "reports", "benchmarks", "src/balbench", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".yaml"}]
    assert len(files) > 100
    for file in files:
        for page in re.findall(r"docs/[\w/-]+\.(?:md|ipynb)", file.read_text(encoding="utf-8")):
            assert (ROOT / page).is_file(), f"{file.relative_to(ROOT)}: {page} does not exist"


def test_tests_and_modules_that_the_documentation_names_exist():
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for path in re.findall(r"\b((?:tests|harness|reports|oracles|benchmarks)/[\w/]+\.py)\b", prose):
            assert (ROOT / path).is_file(), f"{page.name}: {path} does not exist"
