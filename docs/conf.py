"""The site: `pip install -e '.[docs]'`, then `sphinx-build -W docs build/docs`.

The pages are those that are read where the repository is browsed, so their links are as they must
be there. What lies outside of docs/ is a page of the site under a name of its own.
"""

import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).resolve().parents[1]


def read_version() -> str:
    """The version of the package, without importing it and what it needs."""
    text = (ROOT / "avit_jax" / "version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)[1]


project = "avit_jax"
release = version = read_version()
extensions = ["myst_parser", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nitpicky = True
highlight_language = "text"  # of blocks that do not say theirs: commands, tables, what is printed

html_theme = "furo"
html_title = f"avit_jax {version}"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_copyright = False
html_copy_source = False

# Files of the repository that are pages of the site, and where.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "launch/README.md": "launching.md",
}


def put_files_in_place(app: Sphinx, name: str, source: list[str]) -> None:
    """A line that is nothing but a link to such a file becomes that file; other links lead to it.

    Args:
        app: this build.
        name: of the page, "performance/cpu".
        source: the text of the page, replaced in place.
    """
    up = "../" * name.count("/")
    for file, page in PAGES.items():
        alone = f"[{file}](../{file})\n"
        if page == f"{name}.md" and alone in source[0]:
            app.env.note_dependency(str(ROOT / file))
            text = (ROOT / file).read_text(encoding="utf-8").replace("](docs/", "](")
            for other, its_page in PAGES.items():
                text = text.replace(f"]({other}", f"]({its_page}")
            source[0] = source[0].replace(alone, text)
        source[0] = source[0].replace(f"](../{up}{file}", f"]({up}{page}")


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Formulas as MathML, which browsers draw themselves: pages need no script and no network."""
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    """The same, on lines of their own."""
    self.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", put_files_in_place)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
