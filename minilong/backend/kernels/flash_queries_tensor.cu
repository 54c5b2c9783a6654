// Flash attention, backward, cotangent of q, on tensor cores: compute capability 8.0 and above.
// 64 KB of shared memory for heads of 64, 96 KB for 128.
// types: float16 bfloat16
// defines: HEAD=64 ROWS=128 COLUMNS=64 CHUNK=32 BLOCK_WARPS=4 KEEP=1 ALIGNED=1 BIAS=0 SEGMENTS=0
// defines: HEAD=128 ROWS=128 COLUMNS=32 CHUNK=32 BLOCK_WARPS=8 KEEP=2 ALIGNED=1 BIAS=0 SEGMENTS=0
// defines: HEAD=64 ROWS=128 COLUMNS=64 CHUNK=32 BLOCK_WARPS=4 KEEP=1 ALIGNED=1 BIAS=1 SEGMENTS=1
// budget: flash_queries registers=255 spills=0
#define TENSOR 1
#include "flash_tensor.cuh"
#include "flash_queries.cuh"
