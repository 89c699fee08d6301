"""What the site needs that the pages in docs/ cannot say: the changelog, and links to files outside docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the changelog as a page."""
    text = (ROOT / "CHANGELOG.md").read_text().replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Leads links to the changelog to its page, and shows those to other files outside docs/ as names."""
    docs = Path(config["docs_dir"])
    folder = (docs / page.file.src_uri).parent

    def replaced(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = (folder / target.partition("#")[0]).resolve()
        if re.match(r"[a-z]+:|#", target) or docs in path.parents or not path.exists():
            return match[0]
        if path.name == "CHANGELOG.md":
            up = "../" * (len(folder.relative_to(docs).parts))
            return f"[{text}]({up}changelog.md)"
        return f"{text} (`{path.relative_to(ROOT)}`)"

    return _LINK.sub(replaced, markdown)
