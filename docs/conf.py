"""The documentation: `nox -s docs`, or `sphinx-build -W docs build/docs`. It needs no network, and loads nothing from one when it is read."""

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions")]

project = "manual-vjp"
author = "The manual-vjp authors"
version = release = installed_version("manual-vjp")
repository = "https://github.com/manual-vjp/manual-vjp"  # also in pyproject.toml, CITATION.cff and the notebook; a test holds them together

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",  # mathematics as MathML, which browsers draw themselves
    "generated",  # catalogues, API pages, figures and a report, from the code
]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

default_role = "code"  # `x` in a docstring
toc_object_entries = False  # the headings say it
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
nitpicky = False  # shapes in annotations ("n d_in") are no types, and cannot be linked

html_theme = "sphinx_book_theme"
html_title = "manual-vjp"
html_static_path = ["_static"]
html_css_files = ["extra.css"]
html_extra_path = ["generated/extra"]
(HERE / "generated" / "extra").mkdir(parents=True, exist_ok=True)  # Sphinx looks for it before `generated` has filled it
html_theme_options = {
    "repository_url": repository,
    "path_to_docs": "docs",
    "use_source_button": True,
    "use_download_button": False,
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search field stands in the side bar
}
exclude_patterns = ["generated/extra"]
suppress_warnings = ["toc.empty_glob"]
# A link to a file of the repository, as it is written for readers on GitHub, leads there.
OUTSIDE = re.compile(r"\]\(((?:\.\./)+)([^)#\s]+)\)")


def to_repository(app, docname, source) -> None:
    folder = (HERE / docname).parent

    def target(match: re.Match) -> str:
        path = (folder / match[1] / match[2]).resolve()
        inside = path.is_relative_to(HERE)
        if not inside and not path.exists():
            raise FileNotFoundError(f"{docname}: there is no {match[1]}{match[2]}")
        return match[0] if inside else f"]({repository}/{'tree' if path.is_dir() else 'blob'}/main/{path.relative_to(HERE.parent)})"

    source[0] = OUTSIDE.sub(target, source[0])


def setup(app) -> None:
    app.connect("source-read", to_repository)
