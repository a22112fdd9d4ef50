"""The rendered course: built without execution, then every page opened in a real Chromium that has no network."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from tests.notebooks import notebooks
from tools import site as tool

# MyST-Parser uses a name that Sphinx is going to take away.
pytestmark = pytest.mark.filterwarnings("ignore:.*MystReferenceResolver.app")

LIBRARY = "needs the pages' builder: pip install 'minicc[site]'"
CHAPTERS = [f"beside/{path.stem}.html" for path in tool.BESIDE if path.is_file()]
PAGES = ["index.html", *(f"{path.stem}.html" for path in notebooks()), *CHAPTERS]

# Formulas that are shown, that are not, that MathJax could not read; TeX that was taken for text; pictures not there.
LOOK = r"""
const done = arguments[0];
const ready = window.MathJax?.startup?.promise ?? Promise.resolve();  // a page without formulas has no MathJax
ready.catch((error) => done({ wrong: [String(error)] })).then(() => {
  const all = [...document.querySelectorAll(".math")];
  const prose = document.querySelector("article").cloneNode(true);
  prose.querySelectorAll("pre, code, .math, mjx-container").forEach((part) => part.remove());
  done({
    formulas: all.length,
    bare: all.filter((f) => !f.querySelector("mjx-container svg :is(path, use)")).map((f) => f.textContent),
    wrong: [...document.querySelectorAll("[data-mml-node=merror]")].map((f) => f.textContent),
    raw: prose.textContent.match(/\$[^$\n]+\$|\\\(|\\\[|\\(frac|sqrt|bar|mathcal)\b/g) ?? [],
    pictures: document.images.length,
    empty: [...document.images].filter((i) => !(i.complete && i.naturalWidth > 0)).map((i) => i.src),
  });
});
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The course, built from the committed notebooks; a warning is an error."""
    pytest.importorskip("myst_nb", reason=LIBRARY)
    pytest.importorskip("furo", reason=LIBRARY)
    folder = tmp_path_factory.mktemp("site") / "pages"
    assert tool.build(folder, notebooks(), strict=True) == 0
    return folder


class References(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []  # where a reader may go
        self.parts: list[str] = []  # what the browser fetches to show the page
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        self.parts += [given[name] for name in ("src", "srcset") if name in given]
        if tag == "link" and given.get("rel") not in ("index", "search", "next", "prev", "canonical"):
            self.parts.append(given.get("href", ""))


def pages(site: Path) -> Iterator[tuple[Path, References]]:
    for path in sorted(site.rglob("*.html")):
        yield path, References(path.read_text("utf-8"))


def test_every_notebook_and_chapter_is_a_page_with_its_stored_outputs(site):
    assert {*PAGES} <= {str(path.relative_to(site)) for path in site.rglob("*.html")}
    assert "Exercise 1 passed" in (site / f"{notebooks()[0].stem}.html").read_text("utf-8")
    front = {urldefrag(link).url for link in References((site / "index.html").read_text("utf-8")).links}
    assert {*PAGES[1:]} <= front


def test_no_internal_link_is_broken(site):
    places = {path: found.places for path, found in pages(site)}
    broken = []
    for path, found in pages(site):
        for link in found.links + found.parts:
            if urlsplit(link).scheme or link in ("", "#"):
                continue
            address, anchor = urldefrag(link)
            target = (path.parent / unquote(urlsplit(address).path)).resolve() if address else path
            if not target.is_file() or (anchor and target in places and unquote(anchor) not in places[target]):
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_pages_are_made_of_nothing_from_outside(site):
    outside = [f"{path.name}: {part}" for path, found in pages(site) for part in found.parts if "//" in part]
    assert outside == []


@pytest.fixture(scope="module")
def address(site, serve) -> str:
    return serve(site)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_its_mathematics_and_its_figures_and_asks_nobody(page, site, address, browser, requests):
    browser.get(f"{address}/{page}")
    seen = browser.execute_async_script(LOOK)
    html = (site / page).read_text("utf-8")
    assert seen["formulas"] == html.count('class="math ')
    problems = {name: seen[name] for name in ("bare", "wrong", "raw", "empty") if seen.get(name)}
    assert problems == {}
    if page in {f"{path.stem}.html" for path in notebooks()}:
        assert seen["formulas"] >= 3 or page.startswith("00-")  # which needs no mathematics
        assert seen["pictures"] >= 1
    requests.read()
    assert requests.asked
    assert requests.outside() == []
    assert requests.failed == []


def test_what_the_tests_look_for_is_found_where_it_is(tmp_path, serve, browser, requests):
    (tmp_path / "index.html").write_text(
        """<link rel="icon" href="data:,"><article><p>so $x = 1$ is \\frac</p><code>$5$</code>
        <div class="math">\\(y\\)</div><img src="https://example.org/a.png"><img src="gone.png"></article>
        <script>MathJax = { startup: { promise: Promise.resolve() } }</script>""",
        "utf-8",
    )
    address = serve(tmp_path)
    browser.get(f"{address}/index.html")
    seen = browser.execute_async_script(LOOK)
    assert seen["raw"] == ["$x = 1$", "\\frac"]
    assert seen["bare"] == ["\\(y\\)"]
    assert len(seen["empty"]) == 2
    assert set(requests.read().outside()) == {"https://example.org/a.png"}
    assert set(requests.failed) == {f"{address}/gone.png", "https://example.org/a.png"}


def test_links_of_chapters_lead_to_the_pages_that_files_have_become():
    places = {"01-ddpm.ipynb": "../01-ddpm.ipynb", "TEACHING.md": "TEACHING.md"}
    text = (
        "[a](notebooks/01-ddpm.ipynb#x) [b](../TEACHING.md) [c](minicc/cli.py) [d](https://a.b/c.md) [e](#f) ![](h.png)"
    )
    expected = "[a](../01-ddpm.ipynb#x) [b](TEACHING.md) c [d](https://a.b/c.md) [e](#f) ![](h.png)"
    assert tool.linked(text, places) == expected
