"""A book of one equation, one claim, one kind, one law, one mutant, one implementation: whole, or with a hole in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minilong.audit.book import Book
from minilong.audit.law import Case, Kind, Law, Measure, Mutant, Subject
from minilong.audit.sources import definitions
from minilong.audit.specs import read_specs

SPEC = """# Doubling

Free text.

## eq:double: Twice a number
Article: 4.1
Verdict: holds
Source: Euclid, Elements
Reference: toy.double

$$ y = 2 x $$

```python
def double(x):
    return 2 * x
```

Reading: Elementwise.

Deviations: None.

## claim:four: Twice two
Article: 4.1
Verdict: corrected

Says: Twice two is five.

Right: It is 4.

```python
assert double(2) == 4
assert double(2) != 5
```

## claim:fame: Doubling is famous
Article: 7
Verdict: unchecked

Says: Many know it.

Right: No program can tell.
"""

CODE = '''"""A toy package."""


def double(x):
    """Twice x (`eq:double`)."""
    return x + x
'''


def numbers() -> Any:
    """Cases of one array."""
    return st.integers(1, 9).map(lambda n: {"x": np.arange(1.0, n + 1)})


def doubles(f: Any, case: Case, measure: Measure) -> None:
    """f gives twice its argument."""
    measure.close(f(case["x"]), case["x"] + case["x"], 1e-12)


KIND = Kind("double", "double(x)", "Doubling.", public=True)
LAW = Law("double/definition", "double", ("eq:double", "claim:four"), "It gives twice its argument.", numbers, doubles)
SUBJECT = Subject("toy.double", "double", lambda x: x + x, None, "eq:double")
MUTANT = Mutant("double/square", "double", lambda x: x * x, ("double/definition",), "plausible: 2 x and x^2 agree at 2")


def toy_book(tmp_path: Path, *, spec: str = SPEC, code: str = CODE, **changes: Any) -> Book:
    """The book, from files that are written below `tmp_path`; `changes` replace its fields."""
    for folder, name, text in (("specs", "double.md", spec), ("toy", "__init__.py", code)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text, "utf-8")
    book = Book(
        specs=read_specs(tmp_path / "specs"),
        places=definitions(tmp_path / "toy"),
        kinds={KIND.name: KIND},
        laws={LAW.name: LAW},
        mutants={MUTANT.name: MUTANT},
        subjects={SUBJECT.name: SUBJECT},
        primitives={},
    )
    return replace(book, **changes)
