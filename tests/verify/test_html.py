"""The HTML report: whole, safe with any names, small, the same each time; and its pictures show what the numbers say."""

import base64
import hashlib
import math
import re
import shutil
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.verify._browser import CHROMIUM, browser
from tests.verify.test_reports import HOSTILE, finding, verdict
from verify import Report, Status, checks
from verify.checks.error_map import COLUMNS, ROWS
from verify.printable import clean
from verify.records import CaseError, Curve, ErrorMap, Evidence
from verify.report import figures, svg
from verify.report.words import NEXT

STEPS = tuple(10.0**-k for k in range(1, 13))


def curve(rule, want=1.0):
    """Of exp at 0, whose derivative is 1; the values are the series, so that nothing cancels at small steps."""
    rises = [math.expm1(h) for h in STEPS], [math.expm1(-h) for h in STEPS]
    return Curve(steps=STEPS, ahead=tuple(rises[0]), behind=tuple(rises[1]), rule=rule, want=want, size=1.0, noise=1e-16, oracle="autodiff")


def errors(name="x", cells=((0.5, None, 3.0), (1e3, math.inf, 1.0))):
    values = ((1.0, 2.0, 3.0), (4.0, math.inf, 6.0))
    return ErrorMap(
        argument=name, dtype="float64", shape=(2, 3), block=(1, 1), cells=cells, worst=(1, 1), cell=(1, 1), got=values, want=values
    )


def evidence(text="x"):
    cases = (
        CaseError(elements=4, dtype="float64", error=30.0),
        CaseError(elements=9, dtype="float64"),
        CaseError(elements=2, dtype="bfloat16", error=math.inf),
    )
    return Evidence(
        check="gradient", address=f"{text}/0/2", case=text, errors=(errors(text),), curve=curve(1.5), cases=cases, unit="its bound", reproduce=f"print({text!r})"
    )  # fmt: skip


def report(text="op"):
    failing = verdict(
        Status.FAIL, finding(message=text, argument=text), finding(Status.PASS, "vmap", message=text), finding(Status.SKIP, "zzz", message=text),
        name=text, diagnosis=text, address=text, smallest_case=text, notes=(text,), timings={text: 1.0, "trace": 2.0}, evidence=evidence(text),
    )  # fmt: skip
    wide = [finding(Status.PASS, name, message=text) for name in checks.BY_NAME]
    others = [
        verdict(status, *(wide if status is Status.PASS else [finding(status, message=text)]), name=f"{text}-{status}") for status in Status
    ]
    return Report(
        verdicts=(*others, failing),
        environment={"jax": text, "devices": [text], "settings": {"XLA_FLAGS": text}},
        run={"command": text, "seed": 0},
    )


class Tags(HTMLParser):
    """The elements and attributes of a page, and its text outside of style and script."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text, self._inside = [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("style", "script"):
            self.text.append(data)


PLAIN = Tags(report().to_html())


@pytest.mark.parametrize(
    "text", [*HOSTILE, "</script><script>alert(1)</script>", "' onload='x", '"><img src=x onerror=y>', "{{ 7 * 7 }}", "</style>"]
)
def test_hostile_names_are_text(text):
    """Whatever a name is, the page has the elements and attributes that it has with a harmless one."""
    page = report(text).to_html()
    page.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ufffe]", page)
    tags = Tags(page)
    assert [(tag, sorted(attributes)) for tag, attributes in tags.found] == [(tag, sorted(attributes)) for tag, attributes in PLAIN.found]
    assert clean(text) in "".join(tags.text)


def test_the_policy_allows_this_style_and_script_and_nothing_else():
    page = report().to_html()
    (policy,) = [attributes["content"] for tag, attributes in PLAIN.found if attributes.get("http-equiv") == "Content-Security-Policy"]
    for kind in ("style", "script"):
        (content,) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    attributes = {name for _, found in PLAIN.found for name in found}
    assert "style" not in attributes and not any(name.startswith("on") for name in attributes)
    links = [value for _, found in PLAIN.found for name, value in found.items() if name in ("href", "src", "action")]
    assert all(link.startswith(("#", "data:")) for link in links) and "http" not in page.replace("http-equiv", "")


def test_the_same_record_gives_the_same_bytes():
    assert report().to_html() == report().to_html()


def test_the_matrix_has_the_worst_first_and_a_word_for_each_sign():
    page = report().to_html()
    body = re.search(r'id="matrix">.*?<tbody>(.*?)</tbody>', page, re.DOTALL).group(1)
    statuses = re.findall(r'<tr data-op="[^"]*" data-status="(\w+)">', body)
    assert statuses == ["FAIL", "FAIL", "ERROR", "INCONCLUSIVE", "PASS", "SKIP"]
    row = next(row for row in body.split("</tr>") if row.count('class="c ') == 3)
    assert re.findall(r'class="c (\w+)">.<i>(\w+)</i>', row) == [("FAIL", "FAIL"), ("PASS", "PASS"), ("SKIP", "SKIP")]
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in PLAIN.found if tag == "th")


def test_every_check_has_a_place_and_a_word_of_advice():
    assert set(NEXT) == set(checks.BY_NAME)


def test_a_page_of_nothing():
    assert "Nothing ran" in Report(verdicts=()).to_html()


def test_fifty_failures_with_all_pictures_are_below_a_megabyte():
    """With as many findings as a wrong operation has, and the largest heat map beside a small one."""
    large = tuple(tuple(10.0 ** ((r + c) % 9) for c in range(COLUMNS)) for r in range(ROWS))
    seen = Evidence(
        check="gradient", errors=(errors(), errors(cells=large)), curve=curve(1.5), reproduce="print(1)\n" * 5,
        cases=tuple(CaseError(elements=k, dtype="float32", error=float(k)) for k in range(1, 30)),
    )  # fmt: skip
    found = [finding(Status.FAIL, name) for name in list(checks.BY_NAME)[:10]] + [
        finding(Status.PASS, name, message="") for name in checks.BY_NAME
    ]
    page = Report(verdicts=tuple(verdict(Status.FAIL, *found, name=f"operation_{k}", evidence=seen) for k in range(50))).to_html()
    assert len(page.encode()) < 1_000_000


def test_shades_grow_with_the_error():
    assert [svg.shade(value, 1e10) for value in (None, 0.0, 1.0, 1.1, 1e4, 1e9, 1e10, math.inf)] == [
        "none",
        "h0",
        "h0",
        "h1",
        "h3",
        "h5",
        "h5",
        "h5",
    ]


def test_the_heat_map_marks_the_worst_cell():
    """Of 3 columns of 30 pixels: cell (1, 1) begins at (30, 30); its frame lies a pixel inside."""
    picture = str(svg.heat("d", errors().cells, (1, 1)))
    assert '<rect class="worst" x="31" y="31" width="28" height="28"/>' in picture
    assert '<g transform="scale(30 30)"><path class="h0" d="M0 0h1v1h-1zM2 1h1v1h-1z"/>' in picture
    assert '<path class="none" d="M1 0h1v1h-1z"/>' in picture


def test_a_chart_places_points_by_their_logarithm():
    """Four decades over 274 pixels from x = 50, two over 170 pixels from y = 182 upwards."""
    picture = str(
        svg.loglog(
            "d", "x", "y", [svg.Series(tone="wrong", points=[(1.0, 1.0), (100.0, 10.0), (1e4, 100.0), (0.0, 5.0), (10.0, math.inf)])]
        )
    )
    assert '<path class="circle wrong" d="M50 182h0M187 97h0M324 12h0M118.5 12h0"/>' in picture


def test_the_pictures_say_what_the_numbers_say():
    """exp at 0 with a slope of 1.5: the remainder of the right slope shrinks like h^3 (its series says so), that of the wrong one like h."""
    record = {"curve": {key: getattr(curve(1.5), key) for key in ("steps", "ahead", "behind", "rule", "want", "size", "noise", "oracle")}}
    differences, remainder = figures.of(record)
    assert "the rule stays 5.0e-01 away" in differences.says
    assert "h^1.0 with the rule's gradient and h^3.0 with the oracle's" in remainder.says
    record["curve"]["rule"] = 1.0
    assert "the mistake does not show here" in figures.of(record)[0].says


def test_the_values_of_small_arrays_can_be_read():
    (figure,) = figures.of({"errors": [{key: getattr(errors(), key) for key in errors().__dataclass_fields__}]})
    assert figure.table[4] == ("[1, 1]", "inf", "inf", "inf") and figure.table[1][3] == "" and len(figure.table) == 6
    assert "3 of 5 cells of x of shape (2, 3) are out of bounds; the worst is x[1, 1]" in figure.says


@pytest.fixture(scope="module")
def page():
    if CHROMIUM is None:
        pytest.skip("no Chromium here: the page's script and layout are not tried")
    folder = Path(tempfile.mkdtemp())
    path = folder / "report.html"
    path.write_text(report("op <i>").to_html(), encoding="utf-8")
    try:
        with browser(folder / "profile") as page:
            page.path = path
            yield page
    finally:
        shutil.rmtree(folder, ignore_errors=True)


SHOWN = "[...document.querySelectorAll('#matrix tbody tr')].filter(row => row.offsetParent).map(row => row.dataset.status).join()"


def test_a_browser_shows_it_without_complaint_or_request(page):
    page.load(page.path)
    assert page.complaints == [] and page.requests == [page.path.as_uri()]
    assert page.run(SHOWN) == "FAIL,FAIL,ERROR,INCONCLUSIVE,PASS,SKIP"
    assert page.run("document.querySelectorAll('svg[role=img]').length") == 5  # heat map, curve, remainder, cases, time


def test_filters_sorts_and_follows_links(page):
    page.load(page.path)
    page.run("document.querySelector('input[value=FAIL]').click()")
    assert page.run(SHOWN) == "ERROR,INCONCLUSIVE,PASS,SKIP" and page.run("document.getElementById('shown').value") == "4 of 6 shown"
    page.run("{ const find = document.getElementById('find'); find.value = 'i>-PASS'; find.dispatchEvent(new Event('input')); }")
    assert page.run(SHOWN) == "PASS" and page.run("[...document.querySelectorAll('details.op')].filter(op => op.offsetParent).length") == 1
    page.load(page.path)
    for order in ("ascending", "descending"):
        page.run("document.querySelector('#matrix th[data-sort=number] button').click()")
        assert page.run("document.querySelector('#matrix th[aria-sort]').ariaSort") == order
    assert page.run(SHOWN) == "SKIP,PASS,INCONCLUSIVE,ERROR,FAIL,FAIL"
    page.run("document.querySelector('#matrix tr[data-status=PASS] a').click()")
    assert page.run("document.querySelector('details.PASS').open") is True
    assert page.complaints == []


def test_light_and_dark_have_enough_contrast(page):
    """WCAG AA: 4.5 for text. The page is asked which colours it uses, in both schemes; the button goes from one to the other."""
    page.load(page.path)
    seen = set()
    for _ in range(2):
        page.run("document.getElementById('theme').click()")
        ground = luminance(page.run("getComputedStyle(document.body).backgroundColor"))
        seen.add(ground > 0.5)
        for selector in ("body", ".faint", "a", *(f".sign.{status}" for status in Status)):
            ink = luminance(page.run(f"getComputedStyle(document.querySelector('{selector}')).color"))
            contrast = (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05)
            assert contrast >= 4.5, (selector, ground, contrast)
    assert seen == {True, False}


def luminance(colour):
    """Relative, as WCAG 2 defines it, of "rgb(r, g, b)"."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_it_is_whole_without_script(page):
    page("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.load(page.path)
        assert page.run(SHOWN).count(",") == 5 and page.run("document.querySelector('#theme').offsetParent") is None
        assert page.run("document.querySelectorAll('details.op[open]').length") == 5
    finally:
        page("Emulation.setScriptExecutionDisabled", value=False)


def test_no_width_makes_the_page_scroll_sideways(page):
    for width in (360, 800, 1400):
        page("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
        page.load(page.path)
        page.run("document.querySelectorAll('details').forEach(details => { details.open = true; })")
        assert page.run("document.documentElement.scrollWidth") <= width
    page("Emulation.clearDeviceMetricsOverride")


def test_a_printed_page_has_what_is_folded(page):
    page("Emulation.setEmulatedMedia", media="print")
    page.load(page.path)
    assert page.run("document.querySelector('details.PASS').open") is False
    assert page.run("document.querySelector('details.PASS table').checkVisibility({contentVisibilityAuto: true})") is True
    page("Emulation.setEmulatedMedia", media="")
