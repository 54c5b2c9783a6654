"""Kernels for a GPU: one `.cu` file and one `.py` file of Python wrappers for each operation."""
