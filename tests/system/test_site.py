"""The site: its pages, the reference, and what MkDocs makes of them."""

import html.parser
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import jaxreg
from experiments.harness.docs import REPOSITORY, ROOT

DOCS = ROOT / "docs"
REFERENCE = sorted((DOCS / "reference").glob("*.md"))
SUBMODULES = ["model_selection", "preconditioners", "reports", "solve", "states"]


def pages_of(nav):
    """The files of a nav of MkDocs, in their order."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


def test_every_page_has_one_place_in_the_navigation():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert Counter(pages_of(nav)) == Counter(pages)


def entries():
    """Per `:::` of the reference the name, and the text between it and its heading."""
    text = "\n".join(page.read_text() for page in REFERENCE)
    entry = r"^## ([\w.]+) \{#jaxreg\.\1\}\n(.*?)^::: jaxreg\.(\S+)$"
    for heading, above, name in re.findall(entry, text, re.DOTALL | re.MULTILINE):
        assert heading == name
        yield f"jaxreg.{name}", above


def public_names():
    modules = {name: getattr(jaxreg, name) for name in SUBMODULES}
    top = [f"jaxreg.{name}" for name in jaxreg.__all__ if name not in modules]
    return top + [f"jaxreg.{m}.{name}" for m in modules for name in modules[m].__all__]


def test_every_public_name_is_in_one_page_of_the_reference():
    names = [name for name, _ in entries()]
    assert Counter(names) == Counter(public_names())


def test_every_penalty_and_constraint_has_its_formula_above_it():
    bases = jaxreg.Penalty, jaxreg.Elementwise, jaxreg.Leafwise, jaxreg.Constraint
    for name, text in entries():
        public = getattr(jaxreg, name.split(".")[-1], None)
        is_penalty = inspect.isclass(public) and issubclass(public, jaxreg.Penalty)
        if is_penalty and public not in bases:
            assert re.search(r"^\$\$\n.+\n\$\$$", text, re.MULTILINE), name


def test_no_table_of_results_stands_in_two_pages():
    text = "\n".join(path.read_text() for path in DOCS.rglob("*.md"))
    tables = re.findall(r"<!-- ((?:results|verdicts|answers|names)[^\n]*) -->", text)
    assert Counter(tables) == Counter(set(tables))


def test_the_readme_is_short_and_its_example_too():
    text = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(text.splitlines()) <= 130
    assert sum(bool(line.strip()) for line in example.splitlines()) <= 12


def test_the_addresses_of_the_repository_are_those_of_pyproject():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    assert {url.removeprefix(REPOSITORY).split("/")[0] for url in urls.values()} == {""}
    for name in ("README.md", "CITATION.cff"):
        found = re.findall(r"https://\S+?(?=/blob|/raw|\s)", (ROOT / name).read_text())
        assert set(found) == {REPOSITORY}, name


class Page(html.parser.HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        link = given.get("src" if tag in ("img", "script") else "href")
        if link is not None:
            self.links.append(link)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", folder]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    followed = 0
    for path, page in pages.items():
        if path.name == "404.html":  # its links are relative to an unknown address
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                source = re.match(re.escape(REPOSITORY) + "/blob/main/(.*)", link)
                assert not source or (ROOT / source[1].split("#")[0]).is_file(), link
                continue
            target = (path.parent / unquote(parts.path)).resolve()
            target = path if not parts.path else target
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].anchors, link
            followed += 1
    assert followed > 1000


@pytest.mark.slow
def test_the_formulas_of_the_site_are_drawn_without_a_script(site):
    written = (DOCS / "reference" / "penalties.md").read_text().count("$$\n") // 2
    drawn = (site / "reference" / "penalties" / "index.html").read_text()
    assert len(re.findall(r'<math [^>]*display="block"', drawn)) == written
    assert "arithmatex" not in drawn


@pytest.mark.slow
def test_bars_in_the_cells_of_a_table_are_drawn_as_bars(site):
    drawn = (site / "reference" / "index.html").read_text()
    assert "sum |w|" in drawn
    assert r"\|" not in drawn


@pytest.mark.slow
def test_no_page_of_the_site_scrolls_sideways_on_a_telephone(site):
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        pytest.skip("no browser here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 390, "height": 800})
        wide = {}
        for path in sorted(site.rglob("index.html")):
            page.goto(path.as_uri())
            over = page.evaluate(
                "document.documentElement.scrollWidth"
                " - document.documentElement.clientWidth"
            )
            if over > 0:
                wide[str(path.relative_to(site))] = over
        browser.close()
    assert wide == {}
