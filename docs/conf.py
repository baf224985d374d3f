"""Settings of the documentation site. `make docs` builds it."""

import sys
import urllib.request
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import generate  # noqa: E402  it lies beside this file

import regmix  # noqa: E402

project = "regmix"
author = "The regmix authors"
copyright = "2026, The regmix authors"  # noqa: A001  Sphinx reads this name
version = release = regmix.__version__
html_title = f"regmix {release}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_generated/*.md", "jupyter_execute"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
myst_heading_anchors = 3
nb_merge_streams = True
nb_execution_mode = "off"  # the outputs are kept in the file: `make notebook`
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 100


def reachable(inventories: dict[str, str]) -> dict[str, tuple[str, None]]:
    """The sites whose list of names can be fetched. Without a network the build goes on without links to them."""
    found: dict[str, tuple[str, None]] = {}
    for name, site in inventories.items():
        try:
            urllib.request.urlopen(f"{site}/objects.inv", timeout=5).close()
        except OSError:
            continue
        found[name] = (site, None)
    return found


intersphinx_mapping = reachable(
    {"python": "https://docs.python.org/3", "torch": "https://docs.pytorch.org/docs/stable"}
)


def as_rst(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    lines[:] = generate.rst(lines)


def setup(app: Sphinx) -> None:
    generate.write(HERE / "_generated")
    app.connect("autodoc-process-docstring", as_rst)
