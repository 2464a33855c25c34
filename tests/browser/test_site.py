"""The built documentation in a real browser, opened as files: no other hosts, no errors, no dead links.

``make docs`` builds it before.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import lab
import pytest

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)
PHONE, DESKTOP = (390, 844), (1280, 800)
NARROW = [  # pages with wide tables, code, formulas, figures
    "index.html", "reference/settings.html", "reference/networks_and_methods.html",
    "explanation/methods.html", "results/ixi_sex.html", "tutorials/00_start_here.html", "how_to/recipes.html",
    "reference/api/explain.html",
]  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PAGES, reason="the site is not built (make docs)"),
]


class Targets(HTMLParser):
    """Places that a page can be linked at, and the links of the page."""

    def __init__(self, text: str):
        super().__init__()
        self.places: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places |= {value for name, value in attrs if name in ("id", "name") and value}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        sources = {"img": "src", "script": "src", "link": "href", "iframe": "src"}
        if tag in sources and found.get(sources[tag]):
            self.loaded.append(found[sources[tag]])


@pytest.fixture(scope="module")
def parsed():
    return {path: Targets(path.read_text(encoding="utf-8")) for path in PAGES}


def test_all_pages_open_without_errors_and_without_other_hosts():
    with lab.chromium(*DESKTOP) as watched:
        for path in PAGES:
            watched.page.goto(path.as_uri())
            where = path.relative_to(SITE).as_posix()
            assert watched.errors == [], where
            assert watched.external == [], where


def test_internal_links_lead_to_pages_and_places(parsed):
    dead = []
    for path, page in parsed.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("#!"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = parsed.get(target)
            place = unquote(parts.fragment)
            if not target.exists() or (known and place and place not in known.places):
                dead.append((path.relative_to(SITE).as_posix(), link))
    assert dead == []


def test_nothing_is_loaded_from_other_hosts(parsed):
    loaded = {link for page in parsed.values() for link in page.loaded}
    assert {link for link in loaded if link.startswith(("http:", "https:", "//"))} == set()


@pytest.mark.parametrize("name", NARROW)
def test_a_page_fits_the_width_of_a_phone(name):
    with lab.chromium(*PHONE) as watched:
        watched.page.goto((SITE / name).as_uri())
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert watched.errors == []


@pytest.mark.parametrize("word", ["Occlusion", "evaluation.atlas", "brain_size_column"])
def test_the_search_finds_pages_without_a_server(word):
    with lab.chromium(*DESKTOP) as watched:
        watched.page.goto(f"{(SITE / 'search.html').as_uri()}?q={word}")
        watched.page.wait_for_selector("#search-results li a", timeout=30_000)
        assert watched.errors == []
        assert watched.external == []


def test_formulas_are_drawn_by_the_browser():
    with lab.chromium(*DESKTOP) as watched:
        watched.page.goto((SITE / "explanation" / "methods.html").as_uri())
        watched.page.wait_for_function("window.MathJax?.startup?.promise")
        watched.page.evaluate("window.MathJax.startup.promise")
        heights = watched.page.evaluate(
            "() => [...document.querySelectorAll('div.math mjx-container')].map((each) => each.clientHeight)"
        )
        assert len(heights) >= 20
        assert min(heights) >= 15
        text = watched.page.evaluate("document.querySelector('article').innerText")
        assert "\\frac" not in text
        assert "$" not in text
