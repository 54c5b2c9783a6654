"""The command line called within the test's process: what it printed, and how it ends on bad input."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result

from minilong.cli import main


def call(*arguments: str | Path, given: str | bytes | None = None) -> Result:
    """`minilong` with these arguments, and what comes on standard input."""
    return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="minilong", input=given)


def refused(*arguments: str | Path, given: str | bytes | None = None) -> str:
    """The one line that a command which cannot work must end with: exit code 2, nothing on standard output."""
    result = call(*arguments, given=given)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stdout == ""
    return result.stderr
