"""README says what the code says: generated blocks are current, its example runs."""

import re
from pathlib import Path

import pytest

from harness.docs import ROOT, blocks, current


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_generated_blocks_are_current(readme: str) -> None:
    assert current(readme) == readme, "README.md is stale: make docs"


def test_every_block_is_filled(readme: str) -> None:
    for name, text in blocks().items():
        assert text.strip(), name
        assert text in readme, name


def test_a_missing_block_is_named() -> None:
    with pytest.raises(ValueError, match="generated: catalogue"):
        current("# a README without blocks")


def test_the_example_runs(readme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # it writes a folder
    example = re.search(r"As a library:\n\n```python\n(.+?)```", readme, re.DOTALL)
    assert example is not None
    exec(compile(example[1], "README.md", "exec"), {})  # noqa: S102 - our own text


def test_links_to_files_lead_somewhere(readme: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link]
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
