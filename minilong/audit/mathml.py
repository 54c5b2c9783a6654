r"""LaTeX to MathML, strictly: a formula that does not convert is an error, and no markup can come out of one.

The library `latex2mathml` reads the formula. Its output is not used as it comes: it leaves unknown commands as text,
writes `\text{<b>}` unescaped, splits `\mathrm{softmax}` into seven letters, and uses attributes that browsers dropped.
So its tree is checked against closed lists of elements and attributes, repaired, and written out with all text escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape, unescape
from xml.etree.ElementTree import Element

from minilong.errors import UserError

# fmt: off
ELEMENTS = frozenset((
    "mrow", "mi", "mn", "mo", "mtext", "mspace", "mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "munder",
    "mover", "munderover", "mtable", "mtr", "mtd", "mstyle",
))
KEPT = frozenset((
    "width", "stretchy", "fence", "form", "accent", "displaystyle", "scriptlevel", "linethickness", "movablelimits",
    "minsize", "maxsize",
))
DROPPED = frozenset(("rowspacing", "columnspacing", "columnlines", "rowlines", "linebreak"))
ENVIRONMENTS = frozenset((
    "aligned", "align", "align*", "split", "cases", "array", "matrix", "pmatrix", "bmatrix", "Bmatrix", "vmatrix",
    "Vmatrix",
))
# fmt: on
SPACES = {
    "negativethinmathspace": "-0.167em",
    "negativemediummathspace": "-0.222em",
    "negativethickmathspace": "-0.278em",
}

SPELT = {
    r"\arg": r"\operatorname{arg}",
    r"\dots": r"\ldots",
    r"\lvert": "|",
    r"\rvert": "|",
    r"\lVert": r"\|",
    r"\rVert": r"\|",
}
"""Commands that the library lacks or treats badly, in words that it knows."""

LIMITS = frozenset(("max", "min", "sup", "inf", "lim", "argmax", "argmin", "arg\u2009max", "arg\u2009min"))
"""Operators whose subscript stands below them in a displayed formula."""

SYMBOLS = frozenset("∞∂∇′″‴…_")
OPENING, CLOSING = frozenset("([{⌊⌈⟨"), frozenset(")]}⌋⌉⟩")
THIN = '<mspace width="0.167em"></mspace>'


def to_mathml(latex: str, *, display: bool = True) -> str:
    """The `<math>` element of a formula, as HTML. ValueError says what does not convert."""
    source = _checked(latex)
    root = _tree(source, "block" if display else "inline")
    body = "".join(_written(child, limits=display) for child in root)
    return f'<math display="{"block" if display else "inline"}">{body}</math>'


def sentences(latex: str) -> list[str]:
    r"""A displayed formula cut at the `\quad` and `\qquad` outside of all brackets: parts that may stand on lines."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"\\(?:[A-Za-z]+|.)|[{}]", latex, re.DOTALL):
        sign = match[0]
        depth += (sign in ("{", r"\left", r"\begin")) - (sign in ("}", r"\right", r"\end"))
        if sign in (r"\quad", r"\qquad") and depth == 0:
            parts.append(latex[start : match.start()])
            start = match.end()
    parts.append(latex[start:])
    return [part for part in parts if part.strip()] or [latex]


def _checked(latex: str) -> str:
    """The source with environments and commands respelt; ValueError where the library would only garble it."""
    source = latex.strip()
    if not source:
        raise ValueError("the formula is empty")
    depth = 0
    for sign in re.findall(r"\\.|[{}]", source, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            break
    if depth:
        raise ValueError("its braces do not balance")
    for name in re.findall(r"\\(?:begin|end)\s*\{([^}]*)\}", source):
        if name not in ENVIRONMENTS:
            raise ValueError(f"the environment {name!r} is not known")
    source = re.sub(r"(\\(?:begin|end)\s*\{)aligned\}", r"\1align*}", source)
    return re.sub(r"\\[A-Za-z]+", lambda m: SPELT.get(m[0], m[0]) + " " * (m[0] in SPELT), source)


def _tree(source: str, display: str) -> Element:
    try:
        from latex2mathml.converter import convert_to_element
    except ModuleNotFoundError as error:
        raise UserError('the page needs latex2mathml; pip install "minilong[audit]"') from error
    try:
        return convert_to_element(source, display=display)
    except Exception as error:  # the library's own dozen classes, and IndexError and the like where it gives up
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__.removesuffix("Error")).lower()
        raise ValueError(f"{name}{f' ({error})' if str(error) else ''}") from error


def _text(node: Element) -> str:
    """An element's own characters: the library keeps entities as text."""
    return unescape(node.text or "").strip("\n\t ")


def _written(node: Element, *, limits: bool) -> str:
    """An element as HTML, checked and repaired. `limits`: subscripts of `max` and its like go below."""
    tag, text, attributes = node.tag, _text(node), _attributes(node)
    if tag not in ELEMENTS:
        raise ValueError(f"<{tag}> is not an element that the page takes")
    if tag == "mspace" and "width" not in node.attrib:
        return ""  # a line break outside a table: browsers ignore it
    if tag in ("mi", "mn", "mo"):
        if "\\" in text:
            raise ValueError(f"the command {text} is not known")
        if text == "&":
            raise ValueError("an & stands outside an environment")
    if tag == "mo" and not text:
        raise ValueError("an operator's name holds more than letters")
    if tag == "mtext" and "$" in text:
        raise ValueError("a text inside the formula holds a formula")
    if tag == "mo" and (_is_word(text) or text in SYMBOLS):
        tag, attributes = "mi", ""
    elif tag == "mi" and len(text) == 1 and not text.isalnum() and text not in SYMBOLS:
        tag, text, attributes = (
            "mo",
            {"~": "∼"}.get(text, text),
            ' stretchy="false"' if text in OPENING | CLOSING else "",
        )
    elif tag == "mi" and (node.text or "").startswith("&#") and text.isascii():
        attributes = ' mathvariant="normal"'  # one letter in roman: the library writes it as an entity, and no more
    if tag in ("mfrac", "msub", "msup", "msubsup", "msqrt", "mroot") or (
        tag == "mtable" and not node.get("displaystyle")
    ):
        inner = False
    else:
        inner = limits
    if tag == "msub" and limits and len(node) == 2 and _text(node[0]) in LIMITS:
        tag = "munder"
    content = "".join(_spaced(node, inner)) if len(node) else escape(text)
    return f"<{tag}{attributes}>{content}</{tag}>"


def _attributes(node: Element) -> str:
    """The attributes that browsers read, those that they lost turned into classes; ValueError for any other."""
    kept, classes = [], []
    for name, value in node.attrib.items():
        if name in KEPT:
            kept.append((name, SPACES.get(value, value)))
        elif name == "mathvariant":
            if value == "normal":
                kept.append((name, value))
            else:
                classes.append(f"mv-{value}")
        elif name == "columnalign":
            classes.append(f"to-{value}")
        elif name not in DROPPED:
            raise ValueError(f"it sets the attribute {name!r}, which the page does not take")
    if classes:
        kept.append(("class", " ".join(classes)))
    return "".join(f' {name}="{escape(value)}"' for name, value in kept)


def _spaced(node: Element, limits: bool) -> Iterator[str]:
    """The children: letters of one word joined, and thin spaces about operator names, as in print."""
    children = list(node)
    if len(children) > 1 and node.tag == "mrow" and all(c.tag == "mi" and c.get("mathvariant") for c in children):
        variants = {c.get("mathvariant") for c in children}
        if len(variants) == 1:
            [variant] = variants
            name = "" if variant == "normal" else f' class="mv-{escape(str(variant))}"'
            yield f"<mi{name}>{escape(''.join(map(_text, children)))}</mi>"
            return
    row = node.tag in ("mrow", "mtd", "mstyle", "msqrt")
    for i, child in enumerate(children):
        if row and i and _is_operator(child) and _ends_term(children[i - 1]):
            yield THIN
        yield _written(child, limits=limits)
        if row and _is_operator(child) and i + 1 < len(children) and _begins_term(children[i + 1]):
            yield THIN


def _is_word(text: str) -> bool:
    return len(text) > 1 and text.replace("\u2009", "").isalpha()


def _is_operator(node: Element) -> bool:
    """Whether it is a name such as `log` or `max`, bare or with scripts."""
    if node.tag in ("msub", "msup", "msubsup", "munder") and len(node):
        return _is_operator(node[0])
    return node.tag in ("mi", "mo") and _is_word(_text(node))


def _ends_term(node: Element) -> bool:
    return not _is_operator(node) and (node.tag not in ("mo", "mspace", "mtext") or _text(node) in CLOSING)


def _begins_term(node: Element) -> bool:
    return node.tag not in ("mo", "mspace", "mtext") and _text(node) not in OPENING and not _fenced(node)


def _fenced(node: Element) -> bool:
    return node.tag == "mrow" and len(node) > 0 and node[0].get("fence") == "true"
