// Rows of a table by their number, in another type if asked for (`eq:embedding`).
// types: float32 float16 bfloat16 float64
// defines: OUT=0; OUT=1; OUT=2; OUT=3
// budget: gather_int registers=64 spills=0
// budget: gather_long registers=64 spills=0
#include "common.cuh"
#include "vectors.cuh"

#ifndef OUT
#define OUT DTYPE
#endif

typedef of_code<OUT>::type out_t;

template <int W, class Index>
__device__ __forceinline__ void copy_rows(const scalar_t* table, const Index* indices, out_t* out, i64 n, i64 m,
                                          i64 width) {
  int vectors = (int)(width / W), columns = vectors < (int)blockDim.x ? vectors : (int)blockDim.x;
  // A block takes as many rows as its threads cover; the threads left over have no work.
  int rows = (int)blockDim.x / columns, row = (int)threadIdx.x / columns, column = (int)threadIdx.x % columns;
  if (row >= rows) return;
  for (i64 k = (i64)blockIdx.x * rows + row; k < m; k += (i64)gridDim.x * rows) {
    i64 index = indices[k];
    if (index < 0) index += n;
    bool there = index >= 0 && index < n;
    const scalar_t* from = table + (there ? index : 0) * width;
    out_t* to = out + k * width;
#pragma unroll 1  // more at a time would need more registers than there are
    for (int j = column; j < vectors; j += columns) {
      Vector<out_t, W> y;
      if (there) {
        Vector<scalar_t, W> x = load_vector<W>(from + (i64)j * W);
#pragma unroll
        for (int i = 0; i < W; i++) y.x[i] = store<out_t>(load(x.x[i]));
      } else {
#pragma unroll
        for (int i = 0; i < W; i++) y.x[i] = store<out_t>((acc_t)__int_as_float(0x7fffffff));
      }
      store_vector<W>(to + (i64)j * W, y);
    }
  }
}

template <class Index>
__device__ __forceinline__ void gather(const scalar_t* table, const Index* indices, out_t* out, i64 n, i64 m,
                                       i64 width) {
  constexpr int W = 16 / (sizeof(out_t) > sizeof(scalar_t) ? sizeof(out_t) : sizeof(scalar_t));
  if (width % W == 0 && aligned(table) && aligned(out))
    copy_rows<W>(table, indices, out, n, m, width);
  else
    copy_rows<1>(table, indices, out, n, m, width);
}

// out[k] = table[indices[k]]: table (n, width), indices (m,), out (m, width). A negative index counts from the end; a
// row that does not exist is NaN, so that it is seen.
extern "C" __global__ void __launch_bounds__(256) gather_int(
    const scalar_t* __restrict__ table, const int* __restrict__ indices, out_t* __restrict__ out, i64 n, i64 m,
    i64 width) {
  gather(table, indices, out, n, m, width);
}

extern "C" __global__ void __launch_bounds__(256) gather_long(
    const scalar_t* __restrict__ table, const i64* __restrict__ indices, out_t* __restrict__ out, i64 n, i64 m,
    i64 width) {
  gather(table, indices, out, n, m, width);
}
