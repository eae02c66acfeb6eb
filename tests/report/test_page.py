"""The report in a real headless Chromium: no errors, figures of a size, folds, sorting, phone, dark, print."""

import base64
import itertools
import re
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from tests.report.browser import CHROMIUM, Browser

from twinrun.study.layout import Layout

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine: install Debian's `chromium`")


@pytest.fixture(scope="module")
def page(reported: Layout) -> Path:
    return reported.report / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.mark.parametrize(("width", "dark"), list(itertools.product((390, 1200), (False, True))))
def test_it_fits_and_shows_every_figure_without_an_error(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.problems.clear()
    browser.show(page, width, dark=dark)
    assert browser.run("window.innerWidth") == width
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = browser.run("[...document.images].map(i => [i.complete, i.naturalWidth, i.width, i.height, i.alt.length])")
    assert len(sizes) == browser.run("document.querySelectorAll('figure').length") >= 15
    for complete, natural, wide, high, words in sizes:
        assert complete
        assert min(natural, wide, high) > 150
        assert words > 30
    # With everything open it still fits.
    assert browser.run("document.documentElement.scrollWidth") <= width
    luminance = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(luminance) < 150) == dark
    assert browser.problems == []


def test_the_first_screen_has_the_four_answers(browser: Browser, page: Path) -> None:
    browser.show(page, 1280)
    answers = browser.run(
        "[...document.querySelectorAll('header .answer')].map(a => [a.querySelector('.value').textContent,"
        " a.querySelector('h2').textContent, a.getBoundingClientRect().bottom])"
    )
    assert [question for _, question, _ in answers] == [
        "Is training deterministic?",
        "How far are identical runs apart?",
        "What difference between two models is real here?",
        "What did determinism cost?",
    ]
    assert all(value.strip() for value, _, _ in answers)
    assert max(bottom for _, _, bottom in answers) <= 800
    assert browser.run("parseFloat(getComputedStyle(document.querySelector('.answer .value')).fontSize)") >= 24
    dots = browser.run("[...document.querySelectorAll('#answer-identical circle')].map(d => d.getBoundingClientRect())"
                       ".filter(d => d.width > 3).length")  # fmt: skip
    assert dots > 30
    heads = browser.run("[...document.querySelectorAll('main h2')].map(h => h.textContent)")
    assert heads[:2] == ["Guidelines", "What was compared"]
    assert heads[-1] == "The thesis's tables and figures"
    assert browser.run("document.documentElement.scrollHeight") < 5 * 900, "folded: a few screens"
    browser.show(page, 390)
    assert browser.run("document.documentElement.scrollWidth") == 390
    bottoms = "[...document.querySelectorAll('header .answer')].map(a => a.getBoundingClientRect().bottom)"
    assert max(browser.run(bottoms)) <= 844, "on a phone's first screen, too"
    seen = (
        "[...document.querySelectorAll('#answer-identical .row:not(.scale)')].filter(r => r.checkVisibility()).length"
    )
    assert browser.run(seen) == 1
    browser.run("document.querySelector('#answer-identical input').click()")
    assert browser.run(seen) == 3
    sides = browser.run(
        "[...document.querySelectorAll('header .answer')].map(a => [a.getBoundingClientRect().left,"
        " a.getBoundingClientRect().right, a.scrollWidth - a.clientWidth])"
    )
    assert len(sides) == 4
    assert all(left >= 0 and right <= 390 and beyond <= 0 for left, right, beyond in sides)


def column(table: str, label: str) -> str:
    return f"""(() => {{ const table = document.querySelector('#table-{table} table');
        const place = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.trim() === '{label}');
        return [place, table.tHead.rows[0].cells[place].getAttribute('aria-sort'),
                [...table.tBodies[0].rows].map(row => row.cells[place].dataset.sort)]; }})()"""


def click(table: str, place: int) -> str:
    return f"document.querySelectorAll('#table-{table} th button')[{place}].click()"


def test_every_heading_sorts_its_table(browser: Browser, page: Path) -> None:
    browser.problems.clear()
    browser.show(page, 1200)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    place, sorted_by, before = browser.run(column("churn", "Churn"))
    assert sorted_by is None
    browser.run(click("churn", place))
    _, sorted_by, rising = browser.run(column("churn", "Churn"))
    assert sorted_by == "ascending"
    assert rising == sorted(before, key=float)
    browser.run(click("churn", place))
    _, sorted_by, falling = browser.run(column("churn", "Churn"))
    assert sorted_by == "descending"
    assert list(map(float, falling)) == sorted(map(float, before), reverse=True)
    # What is not available stays last, whichever way; seeds sort as numbers.
    place, _, _ = browser.run(column("runtime", "SD nd"))
    for _ in range(2):
        browser.run(click("runtime", place))
        values = browser.run(column("runtime", "SD nd"))[2]
        known = [value != "" for value in values]
        assert known == sorted(known, reverse=True)
    broken = browser.run(
        """[...document.querySelectorAll('.table')].filter(s => { const rows = s.querySelectorAll('tbody tr').length;
        for (const b of s.querySelectorAll('th button')) { b.click(); b.click(); }
        return s.querySelectorAll('tbody tr').length !== rows; }).map(s => s.id)"""
    )
    assert broken == []
    assert browser.problems == []


def test_every_link_of_the_contents_leads_somewhere(browser: Browser, page: Path) -> None:
    browser.show(page, 1200)
    dead = browser.run("[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.hash)).length")
    assert dead == 0
    assert browser.run("document.querySelectorAll('nav a').length") > 40
    unlisted = browser.run(
        "[...document.querySelectorAll('figure, section.table')].filter(e => !document.querySelector"
        "(`nav a[href='#${e.id}']`)).length"
    )
    assert unlisted == 0


def test_print_shows_tables_whole_and_hides_the_contents(browser: Browser, page: Path) -> None:
    browser.show(page, 1030, media="print")  # A4 on its side, less the margins
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    cut = browser.run(
        "[...document.querySelectorAll('.scroll')].filter(e => getComputedStyle(e).overflowY !== 'visible').length"
    )
    assert cut == 0
    wide = browser.run("[...document.querySelectorAll('.scroll table')].filter(t => t.offsetWidth > 1030).length")
    assert wide == 0
    folded = "[...document.querySelectorAll('details')].map(d => d.open)"
    assert not any(browser.run(folded))
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert all(browser.run(folded))
    assert browser.run("document.querySelector('#table-weights tbody tr').getBoundingClientRect().height") > 0
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    assert not any(browser.run(folded))


def test_it_is_printed(browser: Browser, page: Path) -> None:
    """A real PDF: several pages, not one blank sheet."""
    browser.show(page, 1200)
    pdf = base64.b64decode(browser.send("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 5


def test_nothing_is_fetched(browser: Browser, page: Path) -> None:
    browser.show(page, 1200)
    fetched = browser.run(
        "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    )
    assert fetched == []


def test_a_link_and_the_search_open_what_is_folded(browser: Browser, page: Path) -> None:
    browser.show(page, 1200)
    seen = "document.querySelector('#table-weights_seeds tbody tr').checkVisibility()"
    assert not browser.run(seen)
    browser.run("location.hash = '#table-weights_seeds'")
    browser.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.run(seen)
    assert 0 <= browser.run("document.querySelector('#table-weights_seeds').getBoundingClientRect().top") < 900
    pressed = "dispatchEvent(new KeyboardEvent('keydown', {key: 'f', ctrlKey: true}))"
    closed = "[...document.querySelectorAll('details')].filter(d => !d.open).length"
    browser.show(page, 1200)
    browser.run(pressed)
    assert browser.run(closed) > 10, "this browser's own search looks into what is folded"
    browser.run(f"delete HTMLElement.prototype.onbeforematch; {pressed}")
    assert browser.run(closed) == 0


def test_tables_and_figures_are_downloaded_as_they_were_written(
    browser: Browser, page: Path, reported: Layout, tmp_path: Path
) -> None:
    browser.show(page, 1200)
    browser.send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    kinds = {"churn.csv": "tables", "churn.tex": "tables", "churn_error.svg": "figures"}
    for name, folder in kinds.items():
        browser.run(f"document.querySelector('a[download=\"{name}\"]').click()")
        end = time.monotonic() + 20
        while not (tmp_path / name).exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert (tmp_path / name).read_bytes() == (reported.analysis / folder / name).read_bytes()
    links = browser.run(
        "[...document.querySelectorAll('figure, .table')].filter(e => !e.querySelector('.get a')).length"
    )
    lines = browser.run("[...document.querySelectorAll('.table')].filter(e => !e.querySelector('table')).length")
    assert links == lines, "everything but what is one line"


def test_rows_are_not_stretched_by_remarks(browser: Browser, page: Path) -> None:
    browser.show(page, 1280)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    tall = browser.run("Math.max(...[...document.querySelectorAll('tbody tr')].map(r => r.offsetHeight))")
    assert 0 < tall < 40
    assert browser.run("document.querySelectorAll('.remarks li').length") > 3


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_fault(browser: Browser, page: Path, dark: bool) -> None:
    """With everything open; one table of those that follow each other and one row of each: the others are the same."""
    browser.show(page, 1280, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    alike = ".table + .table, tbody tr + tr, .remarks li + li, nav li + li"
    browser.run(f"document.querySelectorAll('{alike}').forEach(e => e.remove())")
    browser.run(resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8") + "; 0")
    faults = "axe.run(%s).then(r => r.violations.map(v => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 200)]))"
    assert browser.run(faults % "") == []
    browser.run("document.images[0].removeAttribute('alt')")
    assert [fault[0] for fault in browser.run(faults % "{runOnly: ['image-alt']}")] == ["image-alt"]
