// CUDA on a CPU: included before an unmodified .cu text, which g++ then compiles. One fiber for each CUDA thread, the
// blocks one after another. Barriers and warp collectives are real rendezvous, and the order of threads is ours.
//
// Stricter than a GPU where CUDA leaves something undefined: shared memory begins as NaN, a barrier that a thread has
// left is an error, a value shuffled from a lane that takes no part is NaN, __activemask() is the calling lane alone.
// With g++'s instrumentation each access to memory is checked too: cuda_checks.h. As under NVRTC there is no INFINITY,
// no uint32_t, no std. A __device__ variable must have a value, since what has none is taken for shared memory.
#pragma once
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS  // the C headers alone: three times faster to compile
#include <math.h>
#include <stdio.h>
#include <string.h>
#undef INFINITY
#undef NAN
#undef HUGE_VAL
#undef HUGE_VALF

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define alignas(n) __attribute__((aligned(n)))  // CUDA takes it after __shared__, C++ only before
#define __shared__ static  // all that lies in .bss: the runtime, which has variables too, is another library
#define __constant__ static
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(cpu_cuda::launch->shared)

#include "cuda_state.h"
#include "cuda_collectives.h"
#include "cuda_functions.h"

// Of each kernel: a function that calls it, its signature as text, its bound on threads. Of the library: where it lies.
namespace cpu_cuda {

// "f4" a float, "i8" a long long, "pf4" float*, "Pu4" const unsigned*, "ps16" a pointer to a struct of 16 bytes.
template <class T> struct Text { static void put(char*& at) { at += sprintf(at, "s%d", (int)sizeof(T)); } };
#define CPU_CUDA_TEXT(letter, type) \
  template <> struct Text<type> { static void put(char*& at) { at += sprintf(at, letter "%d", (int)sizeof(type)); } };
CPU_CUDA_TEXT("f", float) CPU_CUDA_TEXT("f", double) CPU_CUDA_TEXT("b", bool)
CPU_CUDA_TEXT("i", char) CPU_CUDA_TEXT("i", signed char) CPU_CUDA_TEXT("i", short) CPU_CUDA_TEXT("i", int)
CPU_CUDA_TEXT("i", long) CPU_CUDA_TEXT("i", long long)
CPU_CUDA_TEXT("u", unsigned char) CPU_CUDA_TEXT("u", unsigned short) CPU_CUDA_TEXT("u", unsigned)
CPU_CUDA_TEXT("u", unsigned long) CPU_CUDA_TEXT("u", unsigned long long)
#undef CPU_CUDA_TEXT
template <> struct Text<void> { static void put(char*& at) { at += sprintf(at, "v0"); } };
template <class T> struct Text<const T> : Text<T> {};
template <class T> struct Text<volatile T> : Text<T> {};
template <class T> struct Text<T*> { static void put(char*& at) { *at++ = 'p'; Text<T>::put(at); } };
template <class T> struct Text<const T*> { static void put(char*& at) { *at++ = 'P'; Text<T>::put(at); } };

template <class... A> static void signature(void (*)(A...), char* at) {
  (void)((Text<A>::put(at), *at++ = ' ', 0) + ... + 0);
  *at = 0;
}

template <int... I> struct Indices {};
template <class... A, int... I> CPU_CUDA_INTERNAL static void call(void (*kernel)(A...), void** a, Indices<I...>) {
  kernel(*(A*)a[I]...);
}
template <class... A> CPU_CUDA_INTERNAL static void call(void (*kernel)(A...), void** arguments) {
  call(kernel, arguments, Indices<__integer_pack(sizeof...(A))...>());
}
}  // namespace cpu_cuda

#define CPU_CUDA_KERNEL(name, bound)                                                                       \
  extern "C" CPU_CUDA_SHARED void shim_stub_##name(void** arguments) { cpu_cuda::call(name, arguments); }  \
  extern "C" CPU_CUDA_SHARED void shim_signature_##name(char* to) { cpu_cuda::signature(name, to); }       \
  extern "C" CPU_CUDA_SHARED int shim_bound_##name() { return bound; }

extern "C" unsigned char __ehdr_start __attribute__((visibility("hidden")));
extern "C" unsigned char __bss_start __attribute__((visibility("hidden"))), _end __attribute__((visibility("hidden")));
extern "C" CPU_CUDA_SHARED void shim_library(unsigned char** at) {
  at[0] = &__ehdr_start;
  at[1] = &__bss_start;
  at[2] = &_end;
}
