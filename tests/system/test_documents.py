"""README, docs and docstrings: their code runs and their tables are the results'."""

import doctest
import importlib
import pathlib
import pkgutil
import re

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxreg
from experiments.harness import docs

MODULES = [
    "jaxreg",
    *(m.name for m in pkgutil.walk_packages(jaxreg.__path__, "jaxreg.")),
]
DOCUMENTS = docs.documents()
IN_REPOSITORY = re.escape(docs.REPOSITORY) + "/(?:blob|raw)/main/"
WITH_CODE = [path for path in DOCUMENTS if "```python" in path.read_text()]
# Those that fit paths or compile a dozen steps.
SLOW = {
    "docs/choosing_the_strength.md",
    "docs/compaction.md",
    "docs/groups.md",
    "docs/linear_models.md",
    "docs/migration.md",
    "docs/special_networks.md",
    "jaxreg.model_selection._path",
}


def name_of(document: pathlib.Path) -> str:
    return str(document.relative_to(docs.ROOT))


def with_marks(name, content):
    return pytest.param(content, id=name, marks=[pytest.mark.slow] * (name in SLOW))


@pytest.mark.parametrize("module", [with_marks(name, name) for name in MODULES])
def test_the_examples_in_docstrings_give_what_they_show(module):
    with jax.numpy_rank_promotion("raise"):
        failed, _ = doctest.testmod(importlib.import_module(module))
    assert failed == 0


def run_blocks(document, fence, capsys):
    """Runs the blocks whose fence matches, in order; what they leave behind."""
    namespace = {}
    # A block of text right behind a block of code is what that prints.
    blocks = re.findall(
        fence + r"\n(.*?)```\n(?:\n```text\n(.*?)```\n)?",
        document.read_text(),
        re.DOTALL,
    )
    for block, shown in blocks:
        exec(compile(block, str(document), "exec"), namespace)
        printed = capsys.readouterr().out
        assert not shown or printed == shown
    return namespace


@pytest.mark.parametrize(
    "document", [with_marks(name_of(path), path) for path in WITH_CODE]
)
def test_python_blocks_run_in_order_and_print_what_follows(document, capsys):
    assert run_blocks(document, "```python", capsys)["jaxreg"] is jaxreg


@pytest.mark.slow
@pytest.mark.parametrize(
    ("document", "package"),
    [
        pytest.param(path, package, id=f"{path.name} {package}")
        for path in DOCUMENTS
        for package in sorted(
            set(re.findall(r"^```python (\w+)$", path.read_text(), re.MULTILINE))
        )
    ],
)
def test_blocks_that_need_a_package_run_behind_the_others(document, package, capsys):
    pytest.importorskip(package)
    assert package in run_blocks(document, f"```python(?: {package})?", capsys)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
@pytest.mark.usefixtures("committed_results")
def test_the_tables_of_a_document_are_those_of_the_results(document):
    text = document.read_text()
    assert text == docs.filled(text), "run: python -m experiments.harness.docs"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_marker_is_read_and_has_its_part_below(document):
    text = document.read_text()
    comments = re.findall(r"<!--.*?-->", text, re.DOTALL)
    # `docs.filled` writes between the markers that it can read, and only there.
    part = re.compile(r"(?<!<!-- end )(-->\n)(.*?)(?=<!-- end)", re.DOTALL)
    parts = [p[1] for p in part.findall(docs.filled(part.sub(r"\1", text)))]
    assert comments[1::2] == ["<!-- end -->"] * (len(comments) // 2)
    assert len(parts) == len(comments) / 2
    for marker, part in zip(comments[::2], parts, strict=True):
        assert part.strip(), f"experiments/harness/docs.py does not read {marker}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_links_of_a_document_lead_to_files(document):
    for target in re.findall(r"\]\(([^)]*)\)", document.read_text()):
        path, _, heading = target.partition("#")
        # An absolute path takes the place of the document's folder.
        here = re.sub(IN_REPOSITORY, f"{docs.ROOT}/", path)
        page = document.parent / here if path else document
        assert page.is_file(), target
        assert not heading or heading in anchors_of(page), target


def anchors_of(page):
    text = page.read_text()
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    # In the reference a name is a heading.
    return set(re.findall(r"^::: (\S+)$", text, re.MULTILINE)) | {
        re.sub(r"[^\w -]", "", s).lower().replace(" ", "-") for s in titles
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_block_is_of_a_kind_that_is_run_or_shown(document):
    fences = re.findall(r"^ *```(.*)$", document.read_text(), re.MULTILINE)
    assert fences[1::2] == [""] * (len(fences) // 2)
    shown = {"text", "sh", "diff", "python train.py"}
    for kind in fences[::2]:
        assert re.fullmatch(r"python(?: \w+)?", kind) or kind in shown, kind


def test_the_first_model_has_the_zeros_that_its_page_names(capsys):
    text = (docs.ROOT / "docs" / "first_model.md").read_text()
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], {})
    kernels = [
        line for line in capsys.readouterr().out.splitlines() if "kernel" in line
    ]
    shares = [float(line.split()[5]) for line in kernels[2:]]
    assert shares == pytest.approx([0.99, 0.97], abs=0.005)


def _two_layers(params, x):
    return jax.nn.relu(x @ params["up"]) @ params["down"]


def test_the_calls_of_the_readme_can_be_made():
    text = (docs.ROOT / "README.md").read_text()
    (table,) = re.findall(r"^\| I want \|.*?\n\n", text, re.DOTALL | re.MULTILINE)
    calls = re.findall(r"`(\w[\w.]*\(.+?\))`", table)
    names = {"optimizer": optax.adam(1e-3), "penalty": jaxreg.L1(1e-4), "decay": 1e-2}
    x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    params = {"up": jnp.ones((2, 4)), "down": jnp.ones((4, 1)).at[0].set(0.0)}
    units = jaxreg.couplings(_two_layers, params, x)
    names |= {"x": x, "y": jnp.array([1.0, 2.0, 4.0])}
    names |= {"units": units, "params": params}
    assert len(calls) >= 8
    for call in calls:
        eval(call, vars(jaxreg) | names)
