"""What the site needs beyond MkDocs: figures, links to sources, maths, docstrings."""

import os
import pathlib
import re
import tomllib

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"][
    "Repository"
]
_OUTWARD = re.compile(r"(?<=\]\()(?:\.\./)+[^)]*")
_FENCE = re.compile(r"^```python (\S+)$", re.MULTILINE)
_MATHS = r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>'
# A run of doctest lines, with the output below each statement.
_DOCTEST = re.compile(r"^>>> .*(?:\n(?!\n).*)*", re.MULTILINE)


def on_files(files, config):
    """The figures of the results, beside the pages."""
    for path in sorted(ROOT.glob("experiments/results/*/figure.png")):
        name = f"figures/{path.parent.name}.png"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, **_):
    """Relative links out of `docs` lead to those figures, and to the repository."""
    # A file's name becomes a title; what else stands there is for the tests.
    markdown = _FENCE.sub(
        lambda m: f'```python title="{m[1]}"' if "." in m[1] else "```python", markdown
    )
    folder = pathlib.PurePosixPath("docs", page.file.src_uri).parent

    def lead(match):
        path = os.path.normpath(folder / match[0])
        if path.startswith("docs/"):
            return match[0]
        figure = re.fullmatch(r"experiments/results/(\w+)/figure\.png", path)
        if figure:
            return os.path.relpath(f"docs/figures/{figure[1]}.png", folder)
        return f"{REPOSITORY}/blob/main/{path}"

    return _OUTWARD.sub(lead, markdown)


def on_page_content(html, **_):
    """LaTeX as MathML, which browsers draw without a script; bars in cells as bars."""
    html = re.sub(r"<code>[^<]*</code>", lambda m: m[0].replace(r"\|", "|"), html)
    return re.sub(_MATHS, _as_mathml, html, flags=re.DOTALL)


def _as_mathml(match):
    kind, latex = ("inline", "block")[match[2] == "["], match[3]
    for escaped, plain in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        latex = latex.replace(escaped, plain)
    return convert(latex, display=kind)


class Docstrings(griffe.Extension):
    """Doctests as blocks of code, and the constructors of penalties."""

    def on_class_members(self, *, cls, **_):
        """Shows `pytree_dataclass` and its fields to griffe as what they stand for."""
        for decorator in cls.decorators:
            if str(decorator.value) == "pytree_dataclass":
                decorator.value = griffe.ExprName("dataclasses.dataclass")
        for field in cls.attributes.values():
            if isinstance(field.value, griffe.ExprCall) and field.annotation:
                is_given = bool(field.value.arguments)
                field.value.function = griffe.ExprName("dataclasses.field")
                field.value = field.value if is_given else None

    def on_object(self, *, obj, **_):
        # Markdown would take `>>>`, and `>= 0` behind an argument, for quotations.
        if obj.docstring:
            text = _DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
            obj.docstring.value = re.sub(r"^( +\w+: )>", r"\1\\>", text, flags=re.M)
