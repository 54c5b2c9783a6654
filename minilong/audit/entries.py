"""What stands in the audit's page: holes, equations as cards, claims, laws and mutants as tables, all linked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

from minilong.audit.markup import Links, bar, code, count, duration, fold, formula, result, slug, table
from minilong.audit.report import ClaimReport, EquationReport, LawReport, MutantReport, Report

FEW = 4
"""Lists of names longer than this are folded."""


class Verdict(NamedTuple):
    """How a verdict is shown."""

    label: str
    mark: str
    meaning: str


VERDICTS = {
    "holds": Verdict("holds", "✓", "what the article prints is right"),
    "corrected": Verdict("corrected", "✎", "what the article prints is wrong, which a counterexample shows"),
    "reading": Verdict("reading", "≈", "what the article prints is ambiguous; the reading taken is given"),
    "unchecked": Verdict("unchecked", "?", "no program can decide it"),
    "implied": Verdict("not printed", "–", "the article does not print it; the code needs it"),
}
"""`implied` stands for an equation without a verdict."""


def verdict(item: EquationReport | ClaimReport) -> str:
    """The verdict's name, one of `VERDICTS`. ValueError for another one."""
    name = item.verdict or "implied"
    if name not in VERDICTS:
        raise ValueError(f"{item.id} has the verdict {name!r}; verdicts are {', '.join(VERDICTS)}")
    return name


def badge(name: str) -> str:
    """A verdict as a label with its mark."""
    label, mark, meaning = VERDICTS[name]
    return (
        f'<span class="badge v-{name}" title="{escape(meaning)}"><span aria-hidden="true">{mark}</span> {label}</span>'
    )


def section(name: str, title: str, n: int, about: str, body: str) -> str:
    """A section of the page; the script counts in it what the filters leave."""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title} '
        f'<span class="n" data-count>{n:,}</span></h2><p class="about">{about}</p>{body}'
        '<p class="nothing" hidden>Nothing here fits the filter.</p></section>'
    )


class Entries:
    """A report on its way to the page: knows what the entries refer to one another by."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.links = Links.of(report)
        self._laws = {law.name: law for law in report.laws}
        self._mutants = {mutant.name: mutant for mutant in report.mutants}

    def holes(self) -> str:
        """Every reason for which the audit fails; nothing if it passes."""
        holes = self.report.holes
        if not holes:
            return ""
        lines = "".join(f"<li data-item>{self.links.named(hole)}</li>" for hole in holes)
        about = "Each of these is a reason to fail."
        return section("holes", "Holes", len(holes), about, f'<ul class="holes">{lines}</ul>')

    def equations(self) -> str:
        """The equations as cards, by the file that states them."""
        parts = []
        for file, group in groupby(self.report.equations, key=lambda q: q.stated.rpartition(":")[0]):
            cards = "".join(map(self._equation, group))
            parts.append(f'<div class="file"><h3><code>{escape(file)}</code></h3>{cards}</div>')
        about = (
            "Each formula stands above the block that states it for the machine. No program can check that the two say "
            "the same: that part is yours. Everything below them has been run."
        )
        return section("equations", "Equations", len(self.report.equations), about, "".join(parts))

    def _equation(self, q: EquationReport) -> str:
        article = (
            f"{'' if q.verdict else 'implied by '}article {escape(q.article)}" if q.article else "not in the article"
        )
        block = code(q.block) if q.block.strip() else ""
        notes = "".join(
            f'<div class="note"><h5>{title}</h5>{self.links.prose(text, q.stated)}</div>'
            for title, text in (("Reading", q.reading), ("Deviations", q.deviations))
            if text.strip()
        )
        return (
            f'<article class="card" id="{slug(q.id)}" data-item data-verdict="{verdict(q)}">'
            f'<header><h4><a href="#{slug(q.id)}">{escape(q.title)}</a></h4>{badge(verdict(q))}'
            f'<p class="meta"><code>{escape(q.id)}</code> · {article}</p></header>'
            f'<div class="formula" tabindex="0">{formula(q.latex, q.stated)}</div>{block}'
            f"{fold('LaTeX', f'<pre>{escape(q.latex.strip())}</pre>', 'latex')}"
            f'<div class="notes">{notes}</div>{self._facts(q)}{self._served(q)}</article>'
        )

    def _facts(self, q: EquationReport) -> str:
        """Where it is stated, where it comes from, what implements it, and whether block and code agree."""
        places = "".join(
            f'<li><code>{escape(file)}:{line}</code> <span class="at">{escape(name)}</span></li>'
            for file, line, name in q.code
        )
        if q.agrees is None:
            block = "for reading; no code is compared with it"
        else:
            agrees = result(q.agrees, "agrees with the code", "disagrees with the code")
            block = f"{agrees} on {count(q.agreement_examples, 'case')} {bar(q.agreement_worst, 'worst difference')}"
        facts = {
            "Code": f"<ul>{places}</ul>" if places else result(False, "", "none names it"),
            "Reference": f"<code>{escape(q.reference)}</code> is its definition in code" if q.reference else "",
            "Block": block,
            "Source": self.links.inline(q.source, q.stated),
            "Stated": f"<code>{escape(q.stated)}</code>",
        }
        rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items() if value)
        return f'<dl class="where">{rows}</dl>'

    def _served(self, q: EquationReport) -> str:
        """The laws of an equation and the mistakes planted in its code, folded unless one survives."""
        if not q.laws:
            return f"<h5>{result(False, '', 'No law serves it')}</h5>"
        figures = f"{count(q.examples, 'example')} {bar(q.worst, 'worst error')}" if q.examples else ""
        own_first = sorted(q.laws, key=lambda name: name in self._laws and len(self._laws[name].serves) > 1)
        laws = "".join(map(self._law_line, own_first))
        killed = sum(k for _, k in q.mutants)
        met = "".join(
            f"<li>{result(k, self.links.mutant(name), self.links.mutant(name) + ' survives')} {self._met(name)}</li>"
            for name, k in q.mutants
        )
        mutants = fold(
            f"{killed} of {count(len(q.mutants), 'planted mistake')} found",
            f"<ul>{met}</ul>" if met else "",
            "met",
            opened=killed < len(q.mutants),
        )
        return (
            f'<h5>{count(len(q.laws), "law")} <span class="figures">{figures}</span></h5>'
            f'<ul class="lawlist">{laws}</ul>{mutants}'
        )

    def _law_line(self, name: str) -> str:
        """A law in an equation's card; its figures stand there only if it serves no other equation."""
        law = self._laws.get(name)
        if law is None:
            return f"<li><p>{self.links.law(name)}</p></li>"
        mark = result(law.passed, '<span class="unseen">holds</span>', '<span class="unseen">fails</span>')
        if len(law.serves) > 1:
            figures = f"serves {len(law.serves)} entries"
        else:
            figures = f"{count(law.examples, 'example')} {bar(law.worst, 'worst error')}"
        statement = self.links.inline(law.statement, None)
        return (
            f'<li><p>{mark} {self.links.law(name)} {statement}</p><p class="figures">{figures}</p>'
            f"{self._failure(law)}</li>"
        )

    def _met(self, name: str) -> str:
        mutant = self._mutants.get(name)
        return f'<span class="at">{self.links.inline(mutant.met, None)}</span>' if mutant else ""

    @staticmethod
    def _failure(law: LawReport) -> str:
        return f'<pre class="failure" tabindex="0">{escape(law.failure)}</pre>' if law.failure else ""

    def claims(self) -> str:
        """The claims: what the article says, what is right, and the check, folded."""
        groups = [
            (f'id="{slug(c.id)}" data-item data-verdict="{verdict(c)}"', self._claim(c), self._check(c))
            for c in self.report.claims
        ]
        columns = ("Section", "Claim", "The article says", "What is right", "Verdict")
        about = "Worked examples, numbers, lines of code and statements of the article, in other words than its own."
        return section("claims", "Claims", len(groups), about, table("claims", columns, groups))

    def _claim(self, c: ClaimReport) -> Sequence[str]:
        failed = result(False, "", "its check fails") if c.passed is False else ""
        return (
            f"<b>{escape(c.article)}</b>",
            f'<a class="title" href="#{slug(c.id)}">{escape(c.title)}</a>',
            f"<div>{self.links.prose(c.says, c.stated)}</div>",
            f"<div>{self.links.prose(c.right, c.stated)}</div>",
            f"<div>{badge(verdict(c))} {failed}</div>",
        )

    def _check(self, c: ClaimReport) -> str:
        """The second row of a claim: its names, laws, and block."""
        laws = f" · laws: {', '.join(map(self.links.law, c.laws))}" if c.laws else ""
        check = "" if c.block.strip() else " · no check"
        ran = {True: "The check, which ran through", False: "The check, which fails", None: "The check"}[c.passed]
        block = fold(ran, code(c.block), "check", opened=c.passed is False) if not check else ""
        return f'<p class="meta"><code>{escape(c.id)}</code> · {escape(c.stated)}{laws}{check}</p>{block}'

    def laws(self) -> str:
        """All laws with what they were run on and what they found."""
        groups = [
            (f'id="{slug(f"law:{law.name}")}" data-item', self._law(law), self._run(law)) for law in self.report.laws
        ]
        columns = ("Law", "Examples", "Worst error", "Mistakes found", "Result")
        about = (
            "Each law is checked on random cases. Its tolerance is a bound on rounding errors, never a number by taste."
        )
        return section("laws", "Laws", len(groups), about, table("laws", columns, groups))

    def _law(self, law: LawReport) -> Sequence[str]:
        killed, planted = sum(k for _, k in law.mutants), len(law.mutants)
        found = f"{killed:,} / {planted:,}"
        return (
            f"<div>{self.links.law(law.name)}<p>{self.links.inline(law.statement, None)}</p></div>",
            f'<div>{law.examples:,} <span class="at">in {duration(law.seconds)}</span></div>',
            bar(law.worst, "worst error"),
            result(killed == planted > 0, found, found),
            result(law.passed, "holds", "fails"),
        )

    def _run(self, law: LawReport) -> str:
        """The second row of a law: what it serves and was run on, its mutants, and how it failed."""
        serves = _listed("Serves", map(self.links.to, law.serves), "entries")
        on = _listed("Run on", (f"<code>{escape(name)}</code>" for name in law.subjects), "implementations")
        mutants = [result(k, self.links.mutant(m), self.links.mutant(m) + " survives") for m, k in law.mutants]
        return f"{serves}{on}{_listed('Planted', mutants, 'mutants')}{self._failure(law)}"

    def mutants(self) -> str:
        """All mutants, with where each mistake was met."""
        groups = [
            (f'id="{slug(f"mutant:{m.name}")}" data-item', self._mutant(m), self._given_away(m))
            for m in self.report.mutants
        ]
        columns = ("Mutant", "Where the mistake was met", "Found by", "Result")
        about = "A law is worth what it finds. Each of these is a plausible mistake, planted on purpose."
        return section("mutants", "Mutants", len(groups), about, table("mutants", columns, groups))

    def _mutant(self, m: MutantReport) -> Sequence[str]:
        by = (f"<li>{result(k, self.links.law(law), self.links.law(law) + ' misses it')}</li>" for law, k in m.by)
        return (
            f"<code>{escape(m.name)}</code>",
            f"<div>{self.links.inline(m.met, None)}</div>",
            f'<ul class="plain">{"".join(by)}</ul>',
            result(m.killed, "found", "survives"),
        )

    @staticmethod
    def _given_away(m: MutantReport) -> str:
        if not m.counterexample:
            return ""
        return fold("What gave it away", f'<pre class="case" tabindex="0">{escape(m.counterexample)}</pre>')


def _listed(title: str, items: Iterable[str], many: str) -> str:
    """Names in a line; folded if they are more than a few."""
    names = list(items)
    if not names:
        return ""
    if len(names) <= FEW:
        return f'<p class="meta">{title} {", ".join(names)}</p>'
    return fold(f"{title} {len(names)} {many}", f"<p>{', '.join(names)}</p>", "meta")
