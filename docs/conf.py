"""Settings of Sphinx: ``make docs`` builds ``docs/_build/html``, whose pages need no network."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from notebook_pages import report_pages  # noqa: E402

project = "xai_brain"
author = "The xai_brain developers"
copyright = "The xai_brain developers"
release = version = version_of("xai-brain")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "generated",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_executed", "_ext", "_gallery", "_templates"]
templates_path: list[str] = []

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
nb_merge_streams = True
nb_execution_mode = "off"  # `make notebooks` executes copies, which are tests
default_role = "obj"
autodoc_typehints = "none"
autodoc_inherit_docstrings = False  # methods without a text of this package are not listed
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
# MathJax with its glyphs in one file, which a package brings along
MATHJAX = "sphinx-mathjax-offline/static/mathjax/tex-svg.js"
mathjax_path = "tex-svg.js"
highlight_language = "none"  # blocks without a language are commands
copybutton_selector = "div:not(.output) > div.highlight > pre"  # not the outputs of notebooks
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = f"xai_brain {release}"
html_static_path = ["_static", str(distribution("sphinx-mathjax-offline").locate_file(MATHJAX))]
html_css_files = ["site.css"]
html_extra_path = [str(path) for path in report_pages(HERE / "_executed")]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # fetches pages, which browsers refuse for files
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "xai_brain"},
    "show_nav_level": 1,
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
