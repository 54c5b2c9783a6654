"""One self-contained HTML page of an audit: equation, block, code, laws and mutants side by side.

The page fetches nothing: style and script (`page_assets/`) stand in it, formulas are MathML, and its content security
policy allows that one script and no address. It can be read in full without the script, which adds search, counts and
the choice between light and dark. Here is the frame; `entries` writes what stands in it.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable
from html import escape
from importlib.resources import files

from minilong.audit.entries import VERDICTS, Entries, verdict
from minilong.audit.markup import bar, count, duration, slug
from minilong.audit.report import ClaimReport, EquationReport, Report


def render(report: Report) -> str:
    """The page as one string. UserError if a formula of the specs does not convert; it names the place there."""
    entries = Entries(report)
    script = _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    state = "passes" if report.passed else "fails"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>minilong audit: {state}</title>
<style>{_asset("style.css")}</style>
</head>
<body class="{state}">
<a class="skip" href="#main">Skip to the findings</a>
{headline(report)}
{toolbar(report)}
<div class="columns">
{contents(report)}
<main id="main" tabindex="-1">
{entries.holes()}
{entries.equations()}
{entries.claims()}
{entries.laws()}
{entries.mutants()}
</main>
</div>
<footer><p>Written by <code>minilong audit --html</code>, version {escape(report.version)}. The page is complete in
itself and fetches nothing.</p></footer>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return files("minilong.audit").joinpath("page_assets", name).read_text("utf-8")


def headline(report: Report) -> str:
    """Whether the audit passed, its size, and the verdicts on the article as two bars."""
    title = "The audit passes" if report.passed else f"The audit fails: {count(len(report.holes), 'hole')}"
    killed, worst = sum(m.killed for m in report.mutants), max((law.worst for law in report.laws), default=0.0)
    facts = (
        (f"{len(report.equations):,}", "equations, each with a block that runs and the code that implements it"),
        (f"{len(report.claims):,}", "claims of the article, each judged"),
        (f"{sum(law.examples for law in report.laws):,}", f"random examples, on {count(len(report.laws), 'law')}"),
        (f"{killed:,} / {len(report.mutants):,}", "planted mistakes found by the laws"),
        (bar(worst, "worst error of all laws"), "of its bound: the worst rounding error in any law"),
    )
    tiles = "".join(f"<div><dt>{escape(label)}</dt><dd>{value}</dd></div>" for value, label in facts)
    return f"""<header class="headline">
<p class="eyebrow">minilong {escape(report.version)} · audit · {count(report.examples, "example")} a law and
implementation · {duration(report.seconds)}</p>
<h1><span class="mark" aria-hidden="true">{"✓" if report.passed else "✗"}</span> {title}</h1>
<dl class="facts">{tiles}</dl>
<section class="verdicts" aria-labelledby="verdicts-title"><h2 id="verdicts-title">Verdicts on the article</h2>
{tally("Equations", report.equations)}{tally("Claims", report.claims)}</section>
</header>"""


def tally(name: str, items: Iterable[EquationReport | ClaimReport]) -> str:
    """Counts of the verdicts as a bar of proportional parts, with the counts written out below."""
    counts = Counter(map(verdict, items))
    shown = [v for v in VERDICTS if counts[v]]
    parts = "".join(f'<i class="v-{v}" style="flex-grow:{counts[v]}"></i>' for v in shown)
    listed = "".join(
        f'<li title="{escape(VERDICTS[v].meaning)}"><i class="v-{v}" aria-hidden="true"></i>'
        f"<b>{counts[v]}</b> {VERDICTS[v].label}</li>"
        for v in shown
    )
    return (
        f'<div class="tally"><h3>{name}</h3><div class="parts" aria-hidden="true">{parts}</div><ul>{listed}</ul></div>'
    )


def toolbar(report: Report) -> str:
    """The filter by verdict, which works by style alone, and search and theme, which the script shows."""
    items: tuple[EquationReport | ClaimReport, ...] = (*report.equations, *report.claims)
    counts = Counter(map(verdict, items))
    radios = "".join(
        f'<label class="chip v-{v}" title="{escape(VERDICTS[v].meaning)}">'
        f'<input type="radio" name="verdict" id="show-{v}" value="{v}">'
        f"<span>{VERDICTS[v].label} <b>{counts[v]}</b></span></label>"
        for v in VERDICTS
    )
    return f"""<form class="toolbar" role="search" aria-label="Filter the findings" autocomplete="off">
<fieldset><legend>Show equations and claims by verdict</legend>
<label class="chip"><input type="radio" name="verdict" id="show-all" value="all" checked><span>all</span></label>
{radios}
</fieldset>
<input type="search" id="search" placeholder="Search  ( / )" aria-label="Search everything" spellcheck="false" hidden>
<output id="found" for="search"></output>
<button type="button" id="theme" hidden>Dark</button>
</form>"""


def contents(report: Report) -> str:
    """The list of sections and equations beside the page."""
    rows = [
        ("holes", "Holes", len(report.holes)),
        ("equations", "Equations", len(report.equations)),
        ("claims", "Claims", len(report.claims)),
        ("laws", "Laws", len(report.laws)),
        ("mutants", "Mutants", len(report.mutants)),
    ]
    sections = "".join(
        f'<li><a href="#{name}">{title} <span class="n">{n}</span></a></li>' for name, title, n in rows if n
    )
    items = "".join(
        f'<li data-verdict="{verdict(q)}"><a href="#{slug(q.id)}">'
        f'<i class="v-{verdict(q)}" aria-hidden="true"></i>{escape(q.title)}</a></li>'
        for q in report.equations
    )
    return f'<nav aria-label="Contents"><ul class="sections">{sections}</ul><ul class="index">{items}</ul></nav>'
