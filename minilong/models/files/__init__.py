"""Checkpoint files of other programs: bytes to named arrays, strictly, mapped into memory, and nothing executed."""

from minilong.models.files.gguf import open_gguf
from minilong.models.files.safetensors import open_safetensors, write_safetensors
from minilong.models.files.tensors import TensorFile

__all__ = ["TensorFile", "open_gguf", "open_safetensors", "write_safetensors"]
