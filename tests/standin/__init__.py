"""A strict stand-in for CuPy on NumPy memory: refuses what CuPy refuses, and runs the CUDA kernels on the CPU."""
