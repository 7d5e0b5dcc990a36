"""The endpoints files on the pages are such as the notifier reads."""

from pathlib import Path

import pytest

from notifier.named_endpoint import read_endpoints
from tests.documents import Block, blocks

_FILES = [block for block in blocks() if block.language == "toml" and "[endpoints." in block.text]


def test_the_pages_show_some() -> None:
    assert {"docs/operations.md", "notifier/README.md"} <= {block.page for block in _FILES}


@pytest.mark.parametrize("block", _FILES, ids=lambda block: block.page)
def test_an_endpoints_file_can_be_read(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text(block.text, encoding="utf-8")
    assert {"crm", "lake"} <= read_endpoints(path, ("team.",)).keys()
