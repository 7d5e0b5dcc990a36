"""Writes the pages that are made from code: `python docs/generate.py` (or `make docs`).

`--check` writes nothing and exits 1, naming the pages that are not up to date; a test runs it.
"""

import sys
from pathlib import Path

import asyncapi
import settings_page

FOLDER = Path(__file__).parent
PAGES = {"asyncapi.yaml": asyncapi.document, "settings.md": settings_page.page}


def main() -> int:
    """0 when every page is (now) up to date."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name, make in PAGES.items():
        file, content = FOLDER / name, make()
        if not file.exists() or file.read_text(encoding="utf-8") != content:
            stale.append(f"docs/{name}")
            if not check:
                file.write_text(content, encoding="utf-8")
    if check and stale:
        print(f"not up to date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1
    print("\n".join(f"wrote {name}" for name in stale) or "up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
