// Rotary positions: pairs of the last axis turned by an angle (Su et al. 2021, `eq:rotary`).
// types: float32 float16 bfloat16 float64
// budget: rotate_neighbours registers=64 spills=0
// budget: rotate_halves registers=64 spills=0
#include "common.cuh"
#include "vectors.cuh"

#define PAIRS ((int)(16 / sizeof(scalar_t)))

struct Turn { acc_t cos, sin; };

// Where rows begin: three outer axes (two of heads and sequences, one of positions), in elements.
struct Strides { i64 first, second, position; };

__device__ __forceinline__ i64 at(const Strides& s, int first, int second, u32 position) {
  return first * s.first + second * s.second + position * s.position;
}

// (a, b) -> (a cos - b sin, a sin + b cos), and the angle negated where direction is -1.
__device__ __forceinline__ void turn_pair(acc_t a, acc_t b, Turn turn, acc_t direction, scalar_t& p,
                                          scalar_t& q) {
  acc_t sin = turn.sin * direction;
  p = store<scalar_t>(a * turn.cos - b * sin);
  q = store<scalar_t>(a * sin + b * turn.cos);
}

// W pairs, of which the first is number j of `half` in the row; pairs are neighbours, or the two halves of the row.
template <int W, bool NEIGHBOURS>
__device__ __forceinline__ void turn_pairs(const scalar_t* x, const Turn* turn, scalar_t* y, u32 j, u32 half,
                                           acc_t direction) {
  if constexpr (W == 1) {  // neither pairs nor angles need begin where a vector may
    u32 a = NEIGHBOURS ? 2 * j : j, b = NEIGHBOURS ? 2 * j + 1 : half + j;
    turn_pair(load(x[a]), load(x[b]), turn[j], direction, y[a], y[b]);
    return;
  }
  Vector<Turn, W> turns = load_vector<W>(turn + j);
  if constexpr (NEIGHBOURS) {
    Vector<scalar_t, 2 * W> in = load_vector<2 * W>(x + 2 * j), out;
#pragma unroll
    for (int k = 0; k < W; k++)
      turn_pair(load(in.x[2 * k]), load(in.x[2 * k + 1]), turns.x[k], direction, out.x[2 * k], out.x[2 * k + 1]);
    store_vector<2 * W>(y + 2 * j, out);
  } else {
    Vector<scalar_t, W> a = load_vector<W>(x + j), b = load_vector<W>(x + half + j), p, q;
#pragma unroll
    for (int k = 0; k < W; k++) turn_pair(load(a.x[k]), load(b.x[k]), turns.x[k], direction, p.x[k], q.x[k]);
    store_vector<W>(y + j, p);
    store_vector<W>(y + half + j, q);
  }
}

// The x axis of the grid shares the positions of one outer index, y and z take the outer indices in turn.
template <int W, bool NEIGHBOURS>
__device__ __forceinline__ void turn_rows(const scalar_t* x, Strides xs, const Turn* turn, Strides ts, scalar_t* y,
                                          int first, int second, u32 positions, u32 half, acc_t direction) {
  u32 vectors = half / W, stride = gridDim.x * blockDim.x;
  for (int a = blockIdx.z; a < first; a += gridDim.z)
    for (int b = blockIdx.y; b < second; b += gridDim.y) {
      scalar_t* rows = y + ((i64)a * second + b) * positions * (2 * (i64)half);
      for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < positions * vectors; i += stride) {
        u32 position = i / vectors, j = (i - position * vectors) * W;
        turn_pairs<W, NEIGHBOURS>(x + at(xs, a, b, position), turn + at(ts, a, b, position),
                                  rows + position * (2 * (i64)half), j, half, direction);
      }
    }
}

template <bool NEIGHBOURS>
__device__ __forceinline__ void turn_all(const scalar_t* x, Strides xs, const Turn* turn, Strides ts, scalar_t* y,
                                         int first, int second, u32 positions, u32 half, acc_t direction) {
  i64 uneven = (xs.first | xs.second | xs.position | half) % PAIRS | (ts.first | ts.second | ts.position) % 2;
  if (uneven == 0 && aligned(x) && aligned(turn) && aligned(y))
    turn_rows<PAIRS, NEIGHBOURS>(x, xs, turn, ts, y, first, second, positions, half, direction);
  else
    turn_rows<1, NEIGHBOURS>(x, xs, turn, ts, y, first, second, positions, half, direction);
}

// x (first, second, positions, 2 half) with strides, turn (first, second, positions, half) with strides; y in C order.
extern "C" __global__ void __launch_bounds__(256) rotate_neighbours(
    const scalar_t* __restrict__ x, i64 x_first, i64 x_second, i64 x_position, const acc_t* __restrict__ turn,
    i64 turn_first, i64 turn_second, i64 turn_position, scalar_t* __restrict__ y, int first, int second, u32 positions,
    u32 half, acc_t direction) {
  turn_all<true>(x, {x_first, x_second, x_position}, (const Turn*)turn, {turn_first, turn_second, turn_position}, y,
                 first, second, positions, half, direction);
}

extern "C" __global__ void __launch_bounds__(256) rotate_halves(
    const scalar_t* __restrict__ x, i64 x_first, i64 x_second, i64 x_position, const acc_t* __restrict__ turn,
    i64 turn_first, i64 turn_second, i64 turn_position, scalar_t* __restrict__ y, int first, int second, u32 positions,
    u32 half, acc_t direction) {
  turn_all<false>(x, {x_first, x_second, x_position}, (const Turn*)turn, {turn_first, turn_second, turn_position}, y,
                  first, second, positions, half, direction);
}
