"""Small pieces of the audit's page: escaped text, links, prose with formulas, highlighted code, bars and tables.

Every function takes plain values and returns HTML in which each value is escaped; only they and `page` write markup.
"""

from __future__ import annotations

import builtins
import io
import keyword
import math
import re
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from minilong.audit.mathml import sentences, to_mathml
from minilong.audit.report import Report
from minilong.errors import UserError

BUILTINS = frozenset(n for n in dir(builtins) if n.islower() and not n.startswith("_")) - {"sum", "abs", "max", "min"}
CONSTANTS = frozenset(("True", "False", "None"))
INLINE = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|\$(?P<math>[^$\s](?:[^$]*[^$\s])?)\$"
    r"|\*\*(?P<strong>[^*]+)\*\*"
    r"|(?P<url>https://[^\s<>()\"'`]*[\w/])"
    r"|(?P<id>\b(?:eq|claim):[a-z0-9]+(?:-[a-z0-9]+)*)"
)


def slug(name: str) -> str:
    """A name as an HTML id that needs no escaping in a link: signs but letters, digits and `:/._-` as `~hex~`."""
    return re.sub(r"[^A-Za-z0-9:/._-]", lambda m: f"~{ord(m[0]):x}~", name)


def formula(latex: str, where: str, *, display: bool = True) -> str:
    """A formula as MathML; UserError names the place in the specs if it does not convert.

    A displayed one may become several `<math>` elements, which narrow screens put below each other.
    """
    try:
        parts = sentences(latex) if display else [latex]
        return "".join(to_mathml(part, display=display) for part in parts)
    except ValueError as error:
        raise UserError(f"{where}: the formula {latex!r} does not convert to MathML: {error}; mend it there") from error


@dataclass(frozen=True)
class Links:
    """Which names have a place on the page, and where: links go to those and to nothing else."""

    anchors: dict[str, str]

    @classmethod
    def of(cls, report: Report) -> Links:
        """The anchors of a report's entries. A law and a mutant may have one name: `mutant` tells them apart."""
        names = {x.id: slug(x.id) for x in report.equations} | {x.id: slug(x.id) for x in report.claims}
        names |= {f"law:{x.name}": slug(f"law:{x.name}") for x in report.laws}
        names |= {f"mutant:{x.name}": slug(f"mutant:{x.name}") for x in report.mutants}
        return cls(names)

    def to(self, key: str, label: str | None = None) -> str:
        """A name in code type, linked if the page has it. `key`: an id of the specs, `law:NAME` or `mutant:NAME`."""
        shown = escape(label if label is not None else key)
        if key in self.anchors:
            return f'<a href="#{self.anchors[key]}"><code>{shown}</code></a>'
        return f"<code>{shown}</code>"

    def law(self, name: str) -> str:
        return self.to(f"law:{name}", name)

    def mutant(self, name: str) -> str:
        return self.to(f"mutant:{name}", name)

    def named(self, line: str) -> str:
        """A line of text in which each word that is a name on the page becomes a link."""

        def word(match: re.Match[str]) -> str:
            text = match[0]
            for key in (text, f"law:{text}", f"mutant:{text}"):
                if key in self.anchors:
                    return self.to(key, text)
            return escape(text)

        return re.sub(r"[^\s'\"`,;()]*[^\s'\"`,;().:]|.", word, line, flags=re.DOTALL)

    def inline(self, text: str, where: str | None) -> str:
        """Text with `code`, $formulas$, **stress**, addresses and ids; without formulas if `where` is None."""
        parts, end = [], 0
        for match in INLINE.finditer(text):
            parts.append(escape(text[end : match.start()]))
            end = match.end()
            kind, inner = str(match.lastgroup), match[str(match.lastgroup)]
            if kind == "math":
                parts.append(escape(match[0]) if where is None else formula(inner, where, display=False))
            elif kind == "strong":
                parts.append(f"<strong>{escape(inner)}</strong>")
            elif kind == "url":
                parts.append(f'<a href="{escape(inner)}" rel="noreferrer">{escape(inner)}</a>')
            elif kind == "id" and inner not in self.anchors:
                parts.append(escape(inner))
            else:
                parts.append(self.to(inner))
        return "".join(parts) + escape(text[end:])

    def prose(self, text: str, where: str) -> str:
        """Paragraphs and lists; the label that a spec file puts before a paragraph (`Reading:`) is left out."""
        blocks = []
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            plain = re.sub(r"^(?:Reading|Deviations?|Says|Right):\s*", "", paragraph.strip())
            if not plain:
                continue
            first, *items = re.split(r"(?:^|\n)\s*[-*] +", plain)
            if first.strip():
                blocks.append(f"<p>{self.inline(' '.join(first.split()), where)}</p>")
            if items:
                inner = "".join(f"<li>{self.inline(' '.join(i.split()), where)}</li>" for i in items)
                blocks.append(f"<ul>{inner}</ul>")
        return "".join(blocks)


def code(source: str) -> str:
    """Python with its keywords, names, numbers, strings and comments marked; plain where it does not tokenise."""
    source = source.strip("\n")
    return f'<pre class="code" tabindex="0"><code>{_highlighted(source)}</code></pre>'


def _highlighted(source: str) -> str:
    starts = [0]
    for line in io.StringIO(source):
        starts.append(starts[-1] + len(line))
    parts, end, before = [], 0, ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            kind = _kind(token, before)
            if token.string.strip():
                before = token.string
            if not kind:
                continue
            begin, stop = (starts[row - 1] + column for row, column in (token.start, token.end))
            parts.append(f'{escape(source[end:begin])}<span class="{kind}">{escape(source[begin:stop])}</span>')
            end = stop
    except (tokenize.TokenError, SyntaxError, IndexError):
        return escape(source)
    return "".join(parts) + escape(source[end:])


def _kind(token: tokenize.TokenInfo, before: str) -> str:
    """The class of a token: k keyword, d name being defined, b built-in, n number, s string, c comment, or none."""
    if token.type == tokenize.NAME:
        if token.string in CONSTANTS:
            return "n"
        if keyword.iskeyword(token.string):
            return "k"
        if before in ("def", "class"):
            return "d"
        return "b" if token.string in BUILTINS and before != "." else ""
    return {tokenize.NUMBER: "n", tokenize.STRING: "s", tokenize.COMMENT: "c"}.get(token.type, "")


def count(n: int, one: str) -> str:
    """A number with its noun."""
    return f"{n:,} {one if n == 1 else one + 's'}"


def duration(seconds: float) -> str:
    """A time to read: `0.2 s`, `14 s`, `2 min 17 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"


def result(good: bool, yes: str, no: str) -> str:
    """A mark and a word (both HTML) that say whether something is as it ought to be."""
    mark, name, word = ("✓", "good", yes) if good else ("✗", "bad", no)
    return f'<span class="{name}"><span aria-hidden="true">{mark}</span> {word}</span>'


def fold(summary: str, body: str, name: str = "", *, opened: bool = False) -> str:
    """Something (HTML) that opens on demand; nothing if there is nothing."""
    state = " open" if opened else ""
    return f'<details class="{name}"{state}><summary>{summary}</summary>{body}</details>' if body else ""


def bar(worst: float, what: str) -> str:
    """An error as a share of its bound: a bar and a number."""
    if not math.isfinite(worst):
        return f'<span class="share bad">{escape(str(worst))}</span>'
    percent = 100 * worst
    text = "0 %" if worst == 0 else "&lt; 1 %" if percent < 1 else f"{percent:.0f} %"
    width = 0.0 if worst <= 0 else min(100.0, max(2.0, percent))
    over = " bad" if worst > 1 else ""
    return (
        f'<span class="share{over}" title="{escape(what)}: {text} of its bound">'
        f'<span class="bar" aria-hidden="true"><i style="width:{width:.0f}%"></i></span>{text}</span>'
    )


def table(name: str, columns: Sequence[str], groups: Iterable[tuple[str, Sequence[str], str]]) -> str:
    """A table that narrow screens stack. Groups: attributes of a `tbody`, cells, and a second row of full width."""
    head = "".join(f'<th role="columnheader" scope="col">{escape(c)}</th>' for c in columns)
    bodies = []
    for attributes, cells, below in groups:
        row = "".join(
            f'<td role="cell" data-label="{escape(label)}">{cell}</td>'
            for label, cell in zip(columns, cells, strict=True)
        )
        extra = (
            f'<tr role="row" class="below"><td role="cell" colspan="{len(columns)}">{below}</td></tr>' if below else ""
        )
        bodies.append(f'<tbody role="rowgroup" {attributes}><tr role="row">{row}</tr>{extra}</tbody>')
    return (
        f'<table role="table" class="{escape(name)}" aria-label="{escape(name)}"><thead role="rowgroup">'
        f'<tr role="row">{head}</tr></thead>{"".join(bodies)}</table>'
    )
