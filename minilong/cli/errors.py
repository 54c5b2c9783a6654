"""The one place where a failure becomes one line on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
from click.exceptions import Exit, NoArgsIsHelpError

from minilong.errors import UserError

MISUSE, INTERRUPTED = 2, 130

REMEDIES = {
    errno.ENOSPC: "free some space, or write somewhere else",
    errno.EDQUOT: "free some space, or write somewhere else",
    errno.EACCES: "check the permissions, or choose another path",
    errno.EPERM: "check the permissions, or choose another path",
    errno.EROFS: "choose a path that can be written",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextmanager
def ending(ctx: click.Context) -> Iterator[None]:
    """Turn what goes wrong inside into one line on stderr and the exit code that the help of `minilong` promises.

    A mistake of ours (any other exception) keeps its traceback: a bug report needs it.
    """
    try:
        yield
    except (Exit, NoArgsIsHelpError):
        raise
    except UserError as error:
        fail(str(error), error.exit_code)
    except click.UsageError as error:
        # The parser of options knows no context; then the command is the one that the group was about to call.
        where = (
            error.ctx.command_path if error.ctx else " ".join(filter(None, (ctx.command_path, ctx.invoked_subcommand)))
        )
        fail(f"{error.format_message().rstrip('.')}; see `{where.rstrip()} --help`")
    except click.ClickException as error:
        fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        drop_unwritable_output()  # the reader of our output has seen enough (`| head`)
        raise Exit(0) from None
    except MemoryError as error:
        fail(f"out of memory{f' ({error})' if str(error) else ''}; lower --batch, --context or --width")
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        fail(f"this terminal cannot show {character!a} ({error.encoding}); set PYTHONUTF8=1, or write to a file")
    except OSError as error:
        drop_unwritable_output()
        fact = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        fail(f"{fact}; {REMEDIES.get(error.errno or 0, 'check the path and try again')}")


def drop_unwritable_output() -> None:
    """Point a standard stream that cannot be written (its disk is full, its reader left) at nothing.

    What it still buffers would otherwise fail once more when Python ends, with a second message and another exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def fail(message: str, code: int = MISUSE) -> NoReturn:
    """Print `minilong: error: message` as one line on stderr and leave with `code`."""
    click.echo(f"minilong: error: {one_line(message)}", err=True)
    raise Exit(code)


def one_line(text: str) -> str:
    """The text with line breaks as spaces and other control characters escaped: a file name cannot forge output."""
    joined = " ".join(part.strip() for part in text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in joined)
