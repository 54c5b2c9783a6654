"""A trace as a safetensors file: arrays by name, and the ids that were read under `ids.`; any program can write one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from minilong.errors import UserError
from minilong.models.files.safetensors import open_safetensors
from minilong.train.trace import Trace

IDS = "ids."


def save_trace(path: Path, trace: Trace) -> None:
    """Write the kept arrays, with equation and code of each in the metadata; whole, or not at all."""
    from safetensors.numpy import save  # the writer of `models` refuses what is not finite, and masked scores are not

    about = {r.name: {"equation": r.equation, "code": r.code} for r in trace.records if r.name in trace.arrays}
    arrays = trace.arrays | {f"{IDS}{name}": ids for name, ids in trace.tokens.items()}
    data = save(arrays, {"records": json.dumps(about)})
    fd, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def read_trace(path: Path, tokens: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a saved trace by name, views of the mapped file. UserError where it says that other ids
    were read."""
    file = open_safetensors(path)
    for name, ids in tokens.items():
        if f"{IDS}{name}" in file.names and not np.array_equal(file.array(f"{IDS}{name}").ravel(), np.ravel(ids)):
            raise UserError(
                f"{str(path)!r} is a trace of other {name} than the prompt's; give the prompt that it was made with"
            )
    return {name: file.array(name) for name in file.names if not name.startswith(IDS)}
