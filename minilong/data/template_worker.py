"""Renders one chat template in a process of its own, which `chat_template` starts and may kill.

A template comes with a checkpoint, from a stranger: the sandbox lets it reach nothing, and the limits on time, memory
and output end one that runs for ever. Read: a JSON object on standard input; written: one on standard output, with
`text` or `error`. This file is run by its path and imports nothing of minilong.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

TAGS = {"generation"}


def limit(seconds: int, size: int) -> None:
    """Bound the processor time and the memory of this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock remains
        return
    for what, value in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, size)):
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


def render(template: str, variables: dict[str, Any], now: str, most: int) -> str:
    """The text of a template, of `most` characters at most; ValueError says what is wrong with it."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what the model wrote, for training; here it changes nothing."""

        tags = TAGS

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = datetime.fromisoformat(now).strftime
    try:
        parts, length = [], 0
        for part in environment.from_string(template).generate(variables):
            parts.append(part)
            length += len(part)
            if length > most:
                raise ValueError(f"writes more than {most:,} characters")
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"is wrong in line {error.lineno}: {error.message}") from None
    except jinja2.TemplateError as error:
        raise ValueError(f"refuses the messages: {error.message}") from None
    except (MemoryError, RecursionError) as error:
        raise ValueError(f"asks for too much ({type(error).__name__})") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"fails: {str(error) or type(error).__name__}") from None
    return "".join(parts)


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    limit(request["seconds"], request["bytes"])
    try:
        answer = {"text": render(request["template"], request["variables"], request["now"], request["most"])}
    except ValueError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
