"""Settings of the documentation site: `make docs` builds it, without a network."""

import importlib.util
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]

import bilevel_tf

project = "bilevel_tf"
author = "the bilevel_tf authors"
copyright = "2026, the bilevel_tf authors"
version = release = bilevel_tf.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstring_markup",
    "generated_pages",
    "link_public_names",
    "mathml",
]
if importlib.util.find_spec("sphinx_copybutton"):
    extensions.append("sphinx_copybutton")

exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

# Single backticks in docstrings are code, as in Keras.
default_role = "literal"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [
    "Reference",
    "Report",
    "Input shape",
    "Output shape",
    ("Call arguments", "params_style"),
]

html_theme = "furo"
html_title = f"bilevel_tf {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
