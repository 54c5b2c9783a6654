// Flash attention, forward, on tensor cores: compute capability 8.0 and above.
// 48 KB of shared memory for heads of 64, 96 KB for 128: two blocks on a multiprocessor of 9.0, or one of them on 8.0.
// types: float16 bfloat16
// defines: HEAD=64 ROWS=128 COLUMNS=64 CHUNK=64 BLOCK_WARPS=4 KEEP=1 ALIGNED=1 BIAS=0 SEGMENTS=0
// defines: HEAD=128 ROWS=128 COLUMNS=32 CHUNK=32 BLOCK_WARPS=4 KEEP=0 ALIGNED=1 BIAS=0 SEGMENTS=0
// defines: HEAD=64 ROWS=128 COLUMNS=64 CHUNK=64 BLOCK_WARPS=4 KEEP=0 ALIGNED=1 BIAS=1 SEGMENTS=1
// budget: flash_forward registers=255 spills=0
#define TENSOR 1
#include "flash_tensor.cuh"
#include "flash_forward.cuh"
