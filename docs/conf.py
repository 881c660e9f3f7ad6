"""Sphinx's settings of the site: `make docs` builds it into build/site."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

import generate  # beside this file

from harness import __version__

project = "harness"
author = "the maintainers of harness"
copyright = author
release = version = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "harness"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_copyright = False


def _make_reference(app: Sphinx) -> None:
    generate.write(Path(app.srcdir) / "reference")


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", _make_reference)
