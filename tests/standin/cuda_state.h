// What kernels and the runtime share: the threads of the block that runs, and the calls from one to the other.
#pragma once
#include <stddef.h>

#define CPU_CUDA_SHARED __attribute__((visibility("default")))

struct uint3 { unsigned x, y, z; };

// What Python fills in for a launch; the same fields, in the same order, stand in shim.py.
struct ShimLaunch {
  unsigned grid[3], block[3];
  void** arguments;
  void (*stub)(void**);        // calls the kernel
  unsigned char* library[3];   // where the kernel's library begins, its static shared memory, and where both end
  unsigned char* shared;       // `bytes` of dynamic shared memory with a guard zone before and after
  size_t bytes;
  unsigned long seed;
  int order;                   // 0 ascending, 1 descending, 2 random
  int milliseconds;            // of CPU time, after which a kernel counts as hanging
  int skip;                    // the number of a barrier that is left out: CPU_CUDA_UNLESS
  int checked;                 // whether the library tells of each access to memory
  unsigned char* reached;      // by number: whether that barrier was come to; or null
  const char* name;
  char error[1024];
};

namespace cpu_cuda {

constexpr unsigned THREADS = 1024, WARPS = THREADS / 32, ALL = ~0u;
enum Kind { NONE, SHUFFLE, VOTE, SYNC, MATCH, EXCHANGE, BARRIER };
enum Access { READ, WRITE, ATOMIC };

struct Thread {
  uint3 index;
  unsigned number;  // in the block: lane number % 32 of warp number / 32
  void* stack;
  void* stack_pointer;
  Kind kind;        // what it waits for, and the line of the source
  int line;
  unsigned mask, source, vote, exchanges;
  size_t bytes;
  unsigned char value[16], result[16];
};

struct Warp {  // sets of lanes
  unsigned alive, ready, started, waiting;
  unsigned char* exchanged[2];
  size_t room[2];
};

extern CPU_CUDA_SHARED Thread* self;  // the thread that runs
extern CPU_CUDA_SHARED Warp warps[WARPS];
extern CPU_CUDA_SHARED uint3 block_index, block_size, grid_size;
extern CPU_CUDA_SHARED ShimLaunch* launch;

CPU_CUDA_SHARED unsigned barrier(int line, bool vote = false);  // the number of threads with a vote, once all have come
CPU_CUDA_SHARED void collective(Kind kind, unsigned mask, int line, size_t bytes = 0);
CPU_CUDA_SHARED const unsigned char* warp_exchange(const void* mine, size_t bytes, int line = 0);
CPU_CUDA_SHARED void touch(void* address, size_t size, Access access, void* place);
CPU_CUDA_SHARED void fenced();
CPU_CUDA_SHARED void fail(const char* format, ...) __attribute__((noreturn, format(printf, 1, 2)));

}  // namespace cpu_cuda
