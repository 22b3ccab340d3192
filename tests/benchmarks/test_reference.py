"""docs/reference.md is the generated page."""

from pathlib import Path

from balbench.benchmarks.reference import page

REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_reference_is_up_to_date():
    remedy = "run `python -m balbench.benchmarks.reference > docs/reference.md`"
    assert REFERENCE.read_text(encoding="utf-8") == page(), remedy
