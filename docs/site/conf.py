"""Sphinx's settings for the rendered course; tools/site.py runs it. Nothing in the pages comes from a network."""

from importlib.util import find_spec
from pathlib import Path

project = "minicc"
author = "The minicc authors"
extensions = ["myst_nb", "sphinx.ext.mathjax"]

nb_execution_mode = "off"  # the outputs are those that are stored
nb_ipywidgets_js = {}  # a live widget would fetch its code from outside: a picture stands for it
nb_mime_priority_overrides = [("*", "application/vnd.jupyter.widget-view+json", None)]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a chapter may go from # to ###

# MathJax as one file that needs no other: glyphs are paths in it, no fonts.
mathjax_file = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg-full.js"
mathjax_path = mathjax_file.name
mathjax3_config = {"svg": {"scale": 0.95}}

html_theme = "furo"
html_favicon = "icon.svg"
html_static_path = [str(mathjax_file), "course.css"]
html_css_files = ["course.css"]
html_title = "minicc: the course"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
