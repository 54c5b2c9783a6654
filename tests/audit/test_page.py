"""The audit's page: complete, inert whatever the report holds, and fetching nothing. No browser is needed."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import time
from collections import Counter
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_report import failing_report, sample_report

from minilong.audit.entries import VERDICTS
from minilong.audit.markup import Links, bar, code, slug
from minilong.audit.mathml import ELEMENTS, sentences, to_mathml
from minilong.audit.page import render
from minilong.audit.report import Report
from minilong.errors import UserError

VOID = {"meta", "input", "br"}
PAYLOAD = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;b&gt; javascript:alert(1)"


class Page(HTMLParser):
    """Elements with their attributes, text by element, and every place where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        self.faults += [f"<{tag}> has {n} twice" for n in set(names) if names.count(n) > 1]
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes another element")

    def handle_data(self, data: str) -> None:
        self.text.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def words(self, *without: str) -> str:
        return " ".join("".join(data for tag, data in self.text if tag not in without).split())


@pytest.fixture(scope="module")
def report() -> Report:
    return sample_report()


@pytest.fixture(scope="module")
def text(report: Report) -> str:
    return render(report)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def hostile(value: Any, name: str = "") -> Any:
    """A report's value with markup planted in every string; names still refer to one another."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: hostile(getattr(value, f.name), f.name) for f in fields(value)})
    if isinstance(value, tuple):
        return tuple(hostile(v, name) for v in value)
    if name == "latex":
        return rf"{value} \text{{<img src=x onerror=alert(1)></math><script>alert(1)</script>}}"
    if isinstance(value, str) and name != "verdict":
        return value + PAYLOAD
    return value


@pytest.mark.parametrize("make", [sample_report, failing_report, lambda: hostile(failing_report())])
def test_tags_nest_ids_are_unique_and_links_arrive(make: Any) -> None:
    page = Page(render(make()))
    assert not page.faults
    ids = Counter(a["id"] for _, a in page.elements if "id" in a)
    assert not [name for name, n in ids.items() if n > 1]
    targets = [a["href"] for a in page.all("a") if a["href"].startswith("#")]
    assert len(targets) > 500
    assert not [t for t in targets if t[1:] not in ids]


@pytest.mark.parametrize("make", [sample_report, failing_report, lambda: hostile(failing_report())])
def test_nothing_is_fetched_and_one_script_may_run(make: Any) -> None:
    text = render(make())
    page = Page(text)
    assert not {tag for tag, _ in page.elements} & {"link", "img", "iframe", "object", "embed", "base", "svg", "video"}
    assert not [a for _, a in page.elements if {"src", "srcset", "action", "background", "xlink:href"} & set(a)]
    assert not [n for _, a in page.elements for n in a if n.startswith("on")]
    assert all(tag == "a" for tag, a in page.elements if "href" in a)
    assert all(a["href"].startswith(("#", "https://")) for a in page.all("a"))
    [style] = [data for tag, data in page.text if tag == "style"]
    assert not re.search(r"url\(|@import|expression", style)
    [script] = [data for tag, data in page.text if tag == "script"]
    assert len(page.all("script")) == 1
    [policy] = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_markup_in_the_report_is_shown_as_text() -> None:
    planted = hostile(failing_report())
    page = Page(render(planted))
    plain = Page(render(failing_report()))
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements}
    shown = page.words("style", "script")
    assert shown.count("<script>alert(1)</script>") > 1000
    for value in (planted.holes[0], planted.equations[0].title, planted.mutants[1].met, planted.claims[0].stated):
        assert " ".join(value.split()) in shown


def test_head_and_headings(page: Page, report: Report) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert [a["content"] for a in page.all("meta") if a.get("name") == "viewport"] == [
        "width=device-width, initial-scale=1"
    ]
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert {"header", "main", "nav", "footer"} <= {tag for tag, _ in page.elements}
    words = page.words("style", "script")
    assert "The audit passes" in words
    assert "2 min 17 s" in words
    assert f"{sum(law.examples for law in report.laws):,}" in words


def test_everything_of_the_report_is_there_without_the_script(page: Page, report: Report) -> None:
    words = page.words("style", "script")
    for q in report.equations:
        for value in (
            q.id,
            q.title,
            q.stated,
            q.source,
            q.latex,
            q.block,
            *(f"{file}:{line}" for file, line, _ in q.code),
        ):
            assert " ".join(value.split()) in words
    for c in report.claims:
        assert all(" ".join(v.split()) in words for v in (c.id, c.title, c.stated, c.block))
    for law in report.laws:
        assert all(v in words for v in (law.name, law.statement, *law.subjects))
    for m in report.mutants:
        assert m.name in words
        assert m.met in words
    hidden = {a.get("id", a.get("class")) for _, a in page.elements if "hidden" in a}
    assert hidden == {"search", "theme", "nothing"}


def test_formulas_are_mathml(page: Page, text: str, report: Report) -> None:
    blocks = [a for a in page.all("math") if a["display"] == "block"]
    assert len(blocks) >= len(report.equations)
    assert len([a for a in page.all("math") if a["display"] == "inline"]) >= len(report.claims)
    outside = re.sub(r"<style>.*?</style>|<script>.*?</script>|<pre.*?</pre>", "", text, flags=re.DOTALL)
    assert not re.findall(r"\\[A-Za-z]+", outside)
    assert "$" not in outside


def test_filter_by_verdict(page: Page, report: Report, text: str) -> None:
    items = [*report.equations, *report.claims]
    shown = {a["id"]: a["data-verdict"] for _, a in page.elements if "id" in a and "data-verdict" in a}
    assert shown == {slug(x.id): x.verdict or "implied" for x in items}
    radios = {a["value"]: a for a in page.all("input") if a.get("name") == "verdict"}
    assert set(radios) == {"all", *VERDICTS}
    assert [v for v, a in radios.items() if "checked" in a] == ["all"]
    style = text[text.index("<style>") : text.index("</style>")]
    assert all(f'body:has(#show-{v}:checked) [data-verdict]:not([data-verdict="{v}"])' in style for v in VERDICTS)
    assert all(radios[v]["id"] == f"show-{v}" for v in radios)
    counts = Counter(x.verdict or "implied" for x in items)
    words = page.words("style", "script")
    assert all(f"{VERDICTS[v].label} {counts[v]}" in words for v in VERDICTS)
    searched = [a for _, a in page.elements if "data-item" in a]
    assert len(searched) == len(items) + len(report.laws) + len(report.mutants)


def test_a_failed_audit_shows_its_holes_first() -> None:
    report = failing_report()
    text = render(report)
    page, words = Page(text), Page(text).words("style", "script")
    assert f"The audit fails: {len(report.holes)} holes" in words
    assert "The audit passes" not in words
    assert text.index('id="holes"') < text.index('id="equations"')
    assert all(hole in words for hole in report.holes)
    [listed] = re.findall(r'<ul class="holes">(.*?)</ul>', text)
    assert {*re.findall(r'href="#([^"]+)"', listed)} == {
        "law:attention/law-0", "mutant:attention/mutant-0", "claim:example-0", "eq:attention", "eq:matmul",
    }  # fmt: skip
    assert "the law asks for 0.25" in words
    assert "disagrees with the code" in words
    assert "No law serves it" in words
    assert "its check fails" in words
    assert len([a for a in page.all("details") if "open" in a]) >= 2
    assert 'id="holes"' not in render(sample_report())


def test_an_empty_report_is_a_page() -> None:
    empty = replace(sample_report(), equations=(), claims=(), laws=(), mutants=())
    assert not Page(render(empty)).faults


def test_a_large_report_is_quick_and_small(report: Report, text: str) -> None:
    begin = time.process_time()
    render(report)
    assert time.process_time() - begin < 1.0
    assert len(text.encode()) < 3_000_000


def test_a_formula_that_does_not_convert_is_an_error_that_names_its_place(report: Report) -> None:
    first, *others = report.equations
    for broken in (
        replace(first, latex=r"\softmax x"),
        replace(first, reading=r"Here $\frac{1$ is half."),
        replace(first, deviations=r"Here $\unheard$ of."),
    ):
        with pytest.raises(
            UserError, match=r"^specs/4\.1-attention\.md:3: the formula .* does not convert .*; mend it"
        ):
            render(replace(report, equations=(broken, *others)))


def test_an_unknown_verdict_is_an_error(report: Report) -> None:
    with pytest.raises(ValueError, match="verdict 'maybe'"):
        render(replace(report, claims=(replace(report.claims[0], verdict="maybe"),)))


@pytest.mark.parametrize(
    "latex, reason",
    [
        ("", "empty"),
        (r"\unheard x", r"command \\unheard is not known"),
        (r"\frac{1", "braces"),
        ("x}", "braces"),
        (r"\left( x", "left or missing right"),
        ("a & b", "outside an environment"),
        (r"\begin{theorem}x\end{theorem}", "environment 'theorem'"),
        (r"\href{https://example.org}{x}", "attribute 'href'"),
        (r"\class{wide}{x}", "attribute 'class'"),
        (r"\style{color:red}{x}", "attribute 'style'"),
        (r"\color{red}{x}", "attribute 'mathcolor'"),
        (r"\operatorname{arg\,max} x", "more than letters"),
        (r"\text{if $x$}", "holds a formula"),
        ("x^", "script"),
    ],
)
def test_what_does_not_convert(latex: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        to_mathml(latex)


@pytest.mark.parametrize(
    "latex, part",
    [
        (r"\mathrm{softmax}(x)", "<mi>softmax</mi>"),
        (r"\mathrm{d}x", '<mi mathvariant="normal">d</mi><mi>x</mi>'),
        (r"\max_j x_j", "<munder><mi>max</mi><mi>j</mi></munder>"),
        (r"\frac{\max_j x}{2}", "<msub><mi>max</mi><mi>j</mi></msub>"),
        (
            r"a \log b",
            '<mi>a</mi><mspace width="0.167em"></mspace><mi>log</mi><mspace width="0.167em"></mspace><mi>b</mi>',
        ),
        (r"\log(b)", '<mi>log</mi><mo stretchy="false">(</mo>'),
        (r"\lVert x \rVert", "‖</mo><mi>x</mi>"),
        (r"\lfloor x \rfloor", '<mo stretchy="false">⌊</mo>'),
        (r"x \pm y", "<mo>±</mo>"),
        (r"\infty", "<mi>∞</mi>"),
        (r"a\!b", '<mspace width="-0.167em">'),
        (r"\begin{aligned} a &= b \\ c &= d \end{aligned}", '<mtd class="to-right"><mi>c</mi></mtd>'),
        (r"\begin{cases} 1 & \text{if } x \\ 0 & \text{else} \end{cases}", '<mtd class="to-left"><mtext>else</mtext>'),
        (r"\arg\max_i x", "<mi>arg</mi>"),
        (r"\boldsymbol{x}", '<mi class="mv-bold-italic">x</mi>'),
        (r"\text{<b>}", "<mtext>&lt;b&gt;</mtext>"),
        ("a < b", "<mo>&lt;</mo>"),
    ],
)
def test_what_converts(latex: str, part: str) -> None:
    result = to_mathml(latex)
    assert part in result
    parsed = Page(result)
    assert not parsed.faults
    assert {tag for tag, _ in parsed.elements} <= ELEMENTS | {"math"}


def test_inline_formulas_keep_their_limits_beside() -> None:
    assert "<msub><mi>max</mi>" in to_mathml(r"\max_j x_j", display=False)


def test_a_long_formula_is_cut_where_it_may_be() -> None:
    assert sentences(r"a = b, \quad c = d \qquad e") == ["a = b, ", " c = d ", " e"]
    whole = [r"\left( a \quad b \right)", r"\text{a \quad b}", r"\begin{cases} a \quad b \end{cases}", r"x \{ a"]
    assert [sentences(latex) for latex in whole] == [[latex] for latex in whole]


SIGNS = r"\{}^_&$<>'x1 \frac\text\left(\right)\mathrm\sqrt\begin{cases}\\"


@given(st.lists(st.sampled_from(re.findall(r"\\[a-z]+|\\\\|.", SIGNS)), max_size=12).map("".join))
def test_no_formula_yields_other_markup(latex: str) -> None:
    try:
        page = Page(to_mathml(latex))
    except ValueError:
        return
    assert not page.faults
    assert {tag for tag, _ in page.elements} <= ELEMENTS | {"math"}


SOURCE = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(["def f(x):\n", "    return ", "'a<b'", '"""', "# é\n", "1e-3", "\t", "\\\n", "(", "π"]),
        max_size=9,
    ).map("".join),
)


@given(SOURCE)
def test_highlighting_changes_no_character(source: str) -> None:
    marked = code(source)
    page = Page(marked)
    assert not page.faults
    assert {tag for tag, _ in page.elements} <= {"pre", "code", "span"}
    inner = re.fullmatch(r"<pre[^>]*><code>(.*)</code></pre>", marked, re.DOTALL)
    assert inner
    assert html.unescape(re.sub(r"</?span[^>]*>", "", inner[1])) == source.strip("\n")


def test_highlighting_marks_python() -> None:
    marked = code("def f(x):\n    return len(x) + 1  # <one>\n")
    for part in ("k", "def"), ("d", "f"), ("k", "return"), ("b", "len"), ("n", "1"), ("c", "# &lt;one&gt;"):
        assert f'<span class="{part[0]}">{part[1]}</span>' in marked


@given(st.text(max_size=60))
def test_text_stays_text(text: str) -> None:
    links = Links({"eq:a": "eq:a"})
    for result in (links.inline(text, None), links.named(text)):
        page = Page(result)
        assert not page.faults
        assert {tag for tag, _ in page.elements} <= {"code", "strong", "a"}
    assert html.unescape(re.sub(r"<[^>]*>", "", links.named(text))) == text


def test_prose() -> None:
    links = Links({"eq:softmax": "eq:softmax"})
    text = "Reading: See `eq:softmax`, eq:unknown and\n`np.sum`; **not** https://example.org/a.\n\n- one\n- $x$ <two>"
    assert links.prose(text, "here") == (
        '<p>See <a href="#eq:softmax"><code>eq:softmax</code></a>, eq:unknown and <code>np.sum</code>; '
        '<strong>not</strong> <a href="https://example.org/a" rel="noreferrer">https://example.org/a</a>.</p>'
        '<ul><li>one</li><li><math display="inline"><mrow><mi>x</mi></mrow></math> &lt;two&gt;</li></ul>'
    )


@pytest.mark.parametrize(
    "worst, shown, width",
    [(0.0, "0 %", "0"), (0.004, "&lt; 1 %", "2"), (0.5, "50 %", "50"), (1.0, "100 %", "100"), (3.2, "320 %", "100")],
)
def test_bar(worst: float, shown: str, width: str) -> None:
    assert f">{shown}</span>" not in bar(worst, "<x>").replace(f"</span>{shown}</span>", "")
    assert f"width:{width}%" in bar(worst, "<x>")
    assert f"{shown} of its bound" in bar(worst, "<x>")
    assert ("bad" in bar(worst, "<x>")) == (worst > 1)
    assert "<x>" not in bar(worst, "<x>")
    assert "width" not in bar(float("nan"), "")


def test_slugs_are_distinct() -> None:
    names = ["a b", "a~20~b", "a-b", "a/b", "é", "<a>", "a:b", "~"]
    assert len({slug(n) for n in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9:/._~-]+", slug(n)) for n in names)


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_its_ground(theme: int) -> None:
    style = files("minilong.audit").joinpath("page_assets", "style.css").read_text("utf-8")
    pairs = dict(re.findall(r"--([a-z-]+): light-dark\(([^)]+)\)", style))
    colours = {name: pair.split(", ")[theme] for name, pair in pairs.items()}
    grounds = {colours.pop(name) for name in ("paper", "card", "sunk", "bad-ground")}
    del colours["line"]
    assert len(colours) >= 14
    for name, colour in colours.items():
        for ground in grounds:
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, f"--{name} on {ground}"


def test_style_and_script_can_stand_in_a_page() -> None:
    for name in ("style.css", "script.js"):
        content = files("minilong.audit").joinpath("page_assets", name).read_text("utf-8")
        assert "</" not in content
        assert "http" not in content
