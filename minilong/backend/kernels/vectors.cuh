// Elements that one instruction moves, and types by their code. Include after common.cuh.
#pragma once

// W neighbours of one type: a load or a store of up to 16 bytes, several of them for more.
template <class T, int W> struct alignas(sizeof(T) * W < 16 ? sizeof(T) * W : 16) Vector { T x[W]; };

template <int W, class T> __device__ __forceinline__ Vector<T, W> load_vector(const T* p) {
  return *reinterpret_cast<const Vector<T, W>*>(p);
}

template <int W, class T> __device__ __forceinline__ void store_vector(T* p, const Vector<T, W>& v) {
  *reinterpret_cast<Vector<T, W>*>(p) = v;
}

// Whether vectors of any width may be read at p; a null pointer is.
template <class T> __device__ __forceinline__ bool aligned(const T* p) { return ((u64)p & 15) == 0; }

// The type that a code stands for: a second type of a kernel beside scalar_t.
template <int CODE> struct of_code;
template <> struct of_code<0> { typedef float type; };
template <> struct of_code<1> { typedef half_t type; };
template <> struct of_code<2> { typedef bfloat_t type; };
template <> struct of_code<3> { typedef double type; };
