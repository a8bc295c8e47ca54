"""Sphinx's settings for the documentation site; `build_site.py` prepares the pages that it reads."""

from pygments.lexers import TextLexer
from sphinx.highlighting import lexers

project = "zoo-pipeline"
html_title = "Galaxy Zoo pipeline"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"

# Pages are plain Markdown, as on GitHub: blocks without a language are commands or output.
highlight_language = "none"
lexers["csv"] = TextLexer()
# Links such as `survey.md#in-python` lead to headings of any of these levels.
myst_heading_anchors = 4

# Docstrings of zoolib put code into single backticks.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
add_module_names = False
napoleon_google_docstring, napoleon_numpy_docstring = True, False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
# A page that was opened from a disk may not fetch others, which the summaries of results need.
html_show_search_summary = False
