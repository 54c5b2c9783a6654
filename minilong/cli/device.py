"""The options that say where a command computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from minilong.cli.output import bytes_of
from minilong.errors import UserError

if TYPE_CHECKING:
    from minilong.backend import Device

F = TypeVar("F", bound=Callable[..., Any])


def device_options(command: F) -> F:
    """--device and --gpu-memory, which give the command `device` and `gpu_memory`, for `open_device`."""
    memory = click.option("--gpu-memory", metavar="SIZE", help="Most to take of a GPU, such as 8GB [all].")
    device = click.option(
        "--device", default="cpu", show_default=True, metavar="NAME", help="Where to compute: cpu, cuda, or cuda:N."
    )
    return device(memory(command))


def open_device(name: str, gpu_memory: str | None = None) -> Device:
    """The device of these options. UserError, with the remedy, where there is none such."""
    from minilong.backend import Device

    device = Device.of(name)
    if gpu_memory is not None:
        try:
            device.limit_memory(bytes_of(gpu_memory))
        except ValueError as error:
            raise UserError(f"--gpu-memory: {error}") from None
    return device
