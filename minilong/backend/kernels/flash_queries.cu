// Flash attention, backward, cotangent of q, without tensor cores: any type, any GPU.
// types: float32 float16 bfloat16 float64
// defines: HEAD=64 ROWS=64 COLUMNS=32 CHUNK=32 BLOCK_WARPS=4 ALIGNED=1 BIAS=0 SEGMENTS=0
// budget: flash_queries registers=255 spills=80
#define TENSOR 0
#define KEEP 0
#include "flash_simt.cuh"
#include "flash_queries.cuh"
