"""The entries of `specs/`, read strictly into values, and their blocks of Python run in one namespace.

A file is a title (`# ...`), free text, then entries. An entry begins at a line `## eq:NAME: title` or
`## claim:NAME: title`, with lines `Key: value` directly below. An equation goes on with one displayed formula, its
block of Python directly below that, then paragraphs that begin with `Reading:` and `Deviations:`; a claim with
paragraphs `Says:` and `Right:` and the block that checks it. What fits no rule is an error that names file and line.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, NoReturn, TypeAlias

import numpy as np

from minilong.errors import UserError, did_you_mean

HEADING = re.compile(r"## (eq|claim):([a-z0-9]+(?:-[a-z0-9]+)*): (\S.*)")
METADATA = {"eq": ("Article", "Verdict", "Source", "Reference"), "claim": ("Article", "Verdict", "Source")}
VERDICTS = {"eq": ("holds", "corrected", "reading"), "claim": ("holds", "corrected", "reading", "unchecked")}
LABELS = {"eq": ("Reading", "Deviations"), "claim": ("Says", "Right")}


class SpecError(UserError):
    """An entry that does not parse: `file:line: what is wrong; what to write`. A hole of the audit: exit code 1."""

    exit_code = 1


@dataclass(frozen=True)
class Equation:
    """One equation. `file` is a path below the folder's parent (`specs/attention.md`), lines count from 1."""

    id: str
    title: str
    file: str
    line: int
    article: str | None
    verdict: str | None
    source: str
    reference: str | None
    latex: str
    block: str
    block_line: int
    reading: str
    deviations: str
    parameters: tuple[str, ...]
    """Names of the parameters of the block's function; that of a starred one begins with `*`."""
    optional: frozenset[str]
    """Those of them that have a default."""

    @property
    def function(self) -> str:
        """The name that the block defines: the id with underscores."""
        return self.id.removeprefix("eq:").replace("-", "_")


@dataclass(frozen=True)
class Claim:
    """One example, number, line of code or statement of the article. `block` is empty where no program can decide."""

    id: str
    title: str
    file: str
    line: int
    article: str
    verdict: str
    source: str
    says: str
    right: str
    block: str
    block_line: int


Entry: TypeAlias = Equation | Claim


@dataclass(frozen=True)
class Specs:
    """All entries of a folder, in the order of files and lines."""

    folder: Path
    equations: Mapping[str, Equation]
    claims: Mapping[str, Claim]

    def compiled(self, entry: Entry) -> CodeType:
        """The block as code whose tracebacks name the spec's file and line."""
        path = self.folder.parent / entry.file
        return compile("\n" * (entry.block_line - 1) + entry.block, str(path), "exec")

    def functions(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The namespace of all equations' blocks, and `id -> what went wrong` for each block that does not run."""
        namespace: dict[str, Any] = {"np": np, "math": math, "__name__": "specs"}
        broken = {}
        for equation in self.equations.values():
            if (failure := self._run(equation, namespace)) is not None:
                broken[equation.id] = failure
        return namespace, broken

    def check(self, claim: Claim, namespace: Mapping[str, Any]) -> str | None:
        """Run a claim's check in a copy of the namespace; what failed, with file and line, or None."""
        return self._run(claim, dict(namespace))

    def _run(self, entry: Entry, namespace: dict[str, Any]) -> str | None:
        try:
            with np.errstate(all="ignore"):
                exec(self.compiled(entry), namespace)  # our own shipped text, nobody else's data
        except Exception as error:  # whatever a block does wrong
            line, at = entry.block_line, error.__traceback__
            while at is not None:
                if at.tb_frame.f_code.co_filename == str(self.folder.parent / entry.file):
                    line = at.tb_lineno
                at = at.tb_next
            said = f"{type(error).__name__}{f': {error}' if str(error) else ''}"
            return f"{entry.file}:{line}: {said}"
        return None


def specs_folder() -> Path:
    """`minilong/specs/` in an installed package, `specs/` beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "specs", package.parent / "specs"):
        if folder.is_dir():
            return folder
    raise UserError(f"the specifications are not at {package / 'specs'}; install minilong again")


def read_specs(folder: Path | None = None) -> Specs:
    """Parse every `*.md` of the folder but its README. SpecError names the file and line of the first mistake."""
    folder = specs_folder() if folder is None else folder
    entries: dict[str, Entry] = {}
    owner: dict[str, str] = {}
    for path in sorted(folder.glob("*.md")):
        if path.name == "README.md":
            continue
        for entry in parse(path.read_text("utf-8"), f"{folder.name}/{path.name}"):
            if (other := entries.get(entry.id)) is not None:
                _refuse(entry.file, entry.line, f"{entry.id} is defined at {other.file}:{other.line} too; rename one")
            entries[entry.id] = entry
            for name in _defined(entry) if isinstance(entry, Equation) else ():
                if name in owner:
                    _refuse(entry.file, entry.block_line, f"the block defines {name!r}, as that of {owner[name]} does")
                owner[name] = entry.id
    equations = {i: e for i, e in entries.items() if isinstance(e, Equation)}
    return Specs(folder, equations, {i: e for i, e in entries.items() if isinstance(e, Claim)})


def parse(text: str, file: str) -> list[Entry]:
    """The entries of one file's text; `file` is the name that errors and entries give."""
    lines = text.split("\n")
    if not lines[0].startswith("# "):
        _refuse(file, 1, "the first line is no title; write `# Title`")
    starts = []
    fenced = None
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            fenced = number if fenced is None else None
        elif fenced is None and number > 1 and line.startswith("#"):
            if not HEADING.fullmatch(line):
                _refuse(file, number, f"{line!r} is no heading of an entry; write `## eq:NAME: Title`")
            starts.append(number)
    if fenced is not None:
        _refuse(file, fenced, "the fence is not closed; add a line of three backquotes")
    ends = [*starts[1:], len(lines) + 1]
    return [_Reader(file, start, lines[start - 1 : end - 1]).entry() for start, end in zip(starts, ends, strict=True)]


class _Reader:
    """One entry's lines, consumed from the top."""

    def __init__(self, file: str, first: int, lines: list[str]) -> None:
        match = HEADING.fullmatch(lines[0])
        assert match is not None
        self.kind, self.id, self.title = match[1], f"{match[1]}:{match[2]}", match[3].strip()
        self.file, self.first, self.lines, self.at = file, first, lines, 1

    def refuse(self, what: str, line: int | None = None) -> NoReturn:
        _refuse(self.file, self.first + self.at if line is None else line, f"{self.id}: {what}")

    def entry(self) -> Entry:
        data = self.metadata()
        latex, block, block_line = "", "", 0
        paragraphs: dict[str, list[str]] = {}
        label = ""
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if not line.strip():
                self.at += 1
            elif self.kind == "eq" and line.startswith("$$"):
                if latex or paragraphs:
                    self.refuse("an equation has one displayed formula, above the rest")
                latex = self.formula()
            elif line.startswith("```"):
                if line != "```python":
                    self.refuse("the fence is not `python`; write ```python")
                if block or (self.kind == "eq" and (not latex or paragraphs)):
                    self.refuse("an entry has one block; that of an equation stands directly below the formula")
                block_line, block = self.first + self.at + 1, self.fence()
            else:
                label = self.paragraph(paragraphs, label)
        texts = {key: "\n\n".join(parts) for key, parts in paragraphs.items()}
        return (
            self.equation(data, texts, latex, block, block_line)
            if self.kind == "eq"
            else self.claim(data, texts, block, block_line)
        )

    def metadata(self) -> dict[str, str]:
        data: dict[str, str] = {}
        while self.at < len(self.lines) and self.lines[self.at].strip():
            key, colon, value = self.lines[self.at].partition(": ")
            known = METADATA[self.kind]
            if not colon or key not in known:
                near = did_you_mean(key, known)
                self.refuse(f"{self.lines[self.at]!r} is none of {', '.join(f'{k}: ...' for k in known)}{near}")
            if key in data:
                self.refuse(f"{key} is given twice")
            data[key] = value.strip()
            self.at += 1
        verdict = data.get("Verdict")
        if verdict is not None and verdict not in VERDICTS[self.kind]:
            near = did_you_mean(verdict, VERDICTS[self.kind])
            self.refuse(f"the verdict {verdict!r} is none of {', '.join(VERDICTS[self.kind])}{near}", self.first)
        if verdict is not None and "Article" not in data:
            self.refuse("a verdict is about the article; add a line `Article: SECTION`", self.first)
        return data

    def formula(self) -> str:
        begin = self.first + self.at
        collected = [self.lines[self.at][2:]]
        while not collected[-1].rstrip().endswith("$$"):
            self.at += 1
            if self.at >= len(self.lines):
                self.refuse("the formula is not closed; add $$", begin)
            collected.append(self.lines[self.at])
        self.at += 1
        latex = "\n".join(collected).rstrip()[:-2].strip()
        if not latex or "$$" in latex:
            self.refuse("write one formula between $$ and $$", begin)
        return latex

    def fence(self) -> str:
        begin = end = self.at + 1
        while not self.lines[end].startswith("```"):  # there is one, or `parse` would have refused the file
            end += 1
        if self.lines[end].rstrip() != "```":
            self.refuse("the fence is closed by a line of three backquotes alone", self.first + end)
        self.at = end + 1
        block = "\n".join(self.lines[begin:end]) + "\n"
        try:
            ast.parse(block)
        except SyntaxError as error:
            self.refuse(f"the block is no Python: {error.msg}", self.first + begin + (error.lineno or 1) - 1)
        if not block.strip():
            self.refuse("the block is empty", self.first + begin)
        return block

    def paragraph(self, paragraphs: dict[str, list[str]], label: str) -> str:
        begin = self.at
        while self.at < len(self.lines) and self.lines[self.at].strip() and not self.lines[self.at].startswith("```"):
            self.at += 1
        text = "\n".join(self.lines[begin : self.at])
        word, colon, rest = text.partition(":")
        if colon and word in LABELS[self.kind]:
            label, text = word, rest.strip()
        elif not label:
            known = " or ".join(f"`{name}:`" for name in LABELS[self.kind])
            self.refuse(f"a paragraph begins with {known}", self.first + begin)
        paragraphs.setdefault(label, []).append(text)
        return label

    def equation(self, data: dict[str, str], texts: dict[str, str], latex: str, block: str, line: int) -> Equation:
        if not latex:
            self.refuse("the formula is missing; write it between $$ and $$", self.first)
        if not block:
            self.refuse("the block is missing; write ```python below the formula", self.first)
        name = self.id.removeprefix("eq:").replace("-", "_")
        found = [n for n in ast.parse(block).body if isinstance(n, ast.FunctionDef) and n.name == name]
        if len(found) != 1:
            self.refuse(f"the block must define the function {name!r}, once", line)
        arguments = found[0].args
        plain = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        star = [f"*{arguments.vararg.arg}"] if arguments.vararg else []
        keywords = {
            a.arg: default is not None for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        }
        optional = {*plain[len(plain) - len(arguments.defaults) :], *(k for k, has in keywords.items() if has)}
        return Equation(
            self.id, self.title, self.file, self.first, data.get("Article"), data.get("Verdict"),
            data.get("Source", ""), data.get("Reference"), latex, block, line,
            texts.get("Reading", ""), texts.get("Deviations", ""), (*plain, *star, *keywords),
            frozenset(optional),
        )  # fmt: skip

    def claim(self, data: dict[str, str], texts: dict[str, str], block: str, line: int) -> Claim:
        for key in ("Article", "Verdict"):
            if key not in data:
                self.refuse(f"a claim needs a line `{key}: ...`", self.first)
        for label in LABELS["claim"]:
            if not texts.get(label):
                self.refuse(f"a claim needs a paragraph `{label}: ...`", self.first)
        if bool(block) == (data["Verdict"] == "unchecked"):
            said = "is unchecked, so it has no block" if block else "needs a block that checks it, or is unchecked"
            self.refuse(f"the claim {said}", self.first)
        return Claim(
            self.id, self.title, self.file, self.first, data["Article"], data["Verdict"], data.get("Source", ""),
            texts["Says"], texts["Right"], block, line,
        )  # fmt: skip


def _defined(equation: Equation) -> Iterable[str]:
    """Names that an equation's block defines at its top level."""
    for node in ast.parse(equation.block).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def _refuse(file: str, line: int, what: str) -> NoReturn:
    raise SpecError(f"{file}:{line}: {what}")
