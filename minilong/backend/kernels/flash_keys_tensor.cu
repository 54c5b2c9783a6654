// Flash attention, backward, cotangents of k and v, on tensor cores: compute capability 8.0 and above.
// 66 KB of shared memory for heads of 64, 97 KB for 128.
// types: float16 bfloat16
// defines: HEAD=64 ROWS=128 COLUMNS=64 CHUNK=32 BLOCK_WARPS=4 KEEP=0 ALIGNED=1 BIAS=0 SEGMENTS=0
// defines: HEAD=128 ROWS=128 COLUMNS=32 CHUNK=32 BLOCK_WARPS=8 KEEP=0 ALIGNED=1 BIAS=0 SEGMENTS=0
// defines: HEAD=64 ROWS=128 COLUMNS=64 CHUNK=32 BLOCK_WARPS=4 KEEP=0 ALIGNED=1 BIAS=1 SEGMENTS=1
// budget: flash_keys registers=255 spills=0
// budget: flash_keys SEGMENTS=1 registers=255 spills=160
#define TENSOR 1
#define BETWEEN_PRODUCTS
#include "flash_tensor.cuh"
#include "flash_keys.cuh"
