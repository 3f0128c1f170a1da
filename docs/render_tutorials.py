"""A hook of MkDocs: shows the tutorials as pages, with the output of their cells where they were executed.

`.ci/run` executes them once in a temporary folder, and names it in EXECUTED_TUTORIALS. Without that variable the
pages are made from the notebooks in the repository, which have no output.
"""

import os
import pathlib
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

NOTEBOOKS = pathlib.Path(__file__).parents[1] / "tutorials"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, and a file for each picture that it draws."""
    folder = pathlib.Path(os.environ.get("EXECUTED_TUTORIALS", NOTEBOOKS))
    for notebook in sorted(folder.glob("*.ipynb")):
        name = notebook.stem
        resources = {"unique_key": name, "output_files_dir": name}
        text, resources = MarkdownExporter().from_filename(str(notebook), resources)
        files.append(File.generated(config, f"tutorials/{name}.md", content=text))
        for picture, content in resources["outputs"].items():
            files.append(File.generated(config, f"tutorials/{picture}", content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to notebooks and pictures, which are right in the repository, lead to them on the site."""
    markdown = markdown.replace("](../docs/assets/", "](../assets/")
    return re.sub(r"\]\(\.\./\.\./tutorials/(\w+)\.ipynb\)", r"](../tutorials/\1.md)", markdown)
