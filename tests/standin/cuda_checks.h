// Checks of each access to memory, by g++'s own instrumentation (-fsanitize=thread, undefined) with these hooks.
//
// A race: two threads touch a byte, one of them writes, and nothing orders them. What orders: __syncthreads in a block,
// __syncwarp in a warp, between blocks __threadfence by the first one. Shuffles and votes do not (CUDA says so), and
// atomics do only among themselves. All this is decided by time stamps: a clock that each such event advances. For
// each word of four bytes the last accesses are noted: one that a later one hides may be missed, but none is invented.
#pragma once

namespace cpu_cuda {

typedef unsigned char u8;

static constexpr const char* AT = ", at ";  // what follows is a place in the library: Python makes a line of it
static unsigned long place(const void* pc) { return (unsigned long)((u8*)pc - launch->library[0]); }

extern "C" u8 __ehdr_start __attribute__((visibility("hidden"))), _end __attribute__((visibility("hidden")));

struct Mark { unsigned block, time, place; unsigned short thread; u8 bytes, atomic; };  // block from 1; 0: none
struct Cell { Mark write, reader, other; };  // the last write; the last read; the last one from another warp, if any

// Pages of global memory whose accesses are noted, at most MOST of them, in an open hash table.
constexpr size_t WORD = 4, TABLE = 1 << 14, MOST = 4096;
static struct { size_t page; Cell* cells; } table[TABLE];
static size_t pages;
static Cell *dynamic_cells, *static_cells;
static size_t dynamic_size, static_size;
static unsigned now, block_number, block_time, warp_time[WARPS], lane_time[WARPS][32][32];
static unsigned* fence_time;  // by block
static size_t last_page;
static Cell* last_cells;

static bool within(u8* at, u8* from, u8* to) { return (size_t)(at - from) < (size_t)(to - from); }
static inline size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

static Cell* cells(size_t n) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* at = mmap(nullptr, n * sizeof(Cell), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (at == MAP_FAILED) fail("no memory for the checks");
  return (Cell*)at;
}

static void checks_begin(size_t blocks) {
  if (!launch->checked) return;
  now = 1;
  static_size = (size_t)(launch->library[2] - launch->library[1]);
  dynamic_size = launch->bytes;
  static_cells = cells(static_size / WORD + 1);
  dynamic_cells = cells(dynamic_size / WORD + 1);
  fence_time = (unsigned*)calloc(blocks + 1, sizeof(unsigned));
}

static void checks_end() {
  for (size_t i = 0; i < TABLE; i++)
    if (table[i].cells) munmap(table[i].cells, PAGE / WORD * sizeof(Cell)), table[i].cells = nullptr;
  pages = 0;
  last_cells = nullptr;
  last_page = 0;
  if (static_cells) munmap(static_cells, (static_size / WORD + 1) * sizeof(Cell));
  if (dynamic_cells) munmap(dynamic_cells, (dynamic_size / WORD + 1) * sizeof(Cell));
  free(fence_time);
  static_cells = dynamic_cells = nullptr;
  fence_time = nullptr;
}

static void block_begins(size_t b) {
  if (!launch->checked) return;
  block_number = (unsigned)b + 1;
  block_time = ++now;
  memset(warp_time, 0, sizeof warp_time);
  memset(lane_time, 0, sizeof lane_time);
}
static void block_synced() { block_time = ++now; }
void fenced() {
  if (launch->checked) fence_time[block_number] = ++now;
}
static void warp_synced(unsigned warp, unsigned group) {
  if (!launch->checked) return;
  ++now;
  if (group == warps[warp].alive) {
    warp_time[warp] = now;
    return;
  }
  for (unsigned m = group; m; m &= m - 1)
    for (unsigned k = group; k; k &= k - 1) lane_time[warp][__builtin_ctz(m)][__builtin_ctz(k)] = now;
}

static bool ordered(const Mark& before, unsigned bytes) {
  unsigned t = self->number;
  if (!before.block || !(before.bytes & bytes)) return true;
  if (before.block != block_number) return fence_time[before.block] > before.time;
  if (before.thread == t || block_time > before.time) return true;
  if (before.thread / 32 != t / 32) return false;
  return warp_time[t / 32] > before.time || lane_time[t / 32][before.thread % 32][t % 32] > before.time;
}

__attribute__((noreturn)) static void race(const Mark& before, bool wrote, const Mark& mark, bool reads, u8* address,
                                           const char* memory, size_t offset) {
  char where[60];
  if (memory) snprintf(where, 60, "byte %zu of %s shared memory", offset, memory);
  else snprintf(where, 60, "global memory at %p", (void*)address);
  unsigned b = before.block - 1;
  const uint3& t = threads[before.thread].index;
  fail("race on %s: this thread %s at @%x what thread (%u, %u, %u) of block (%u, %u, %u) %s at @%x", where,
       reads ? "reads" : mark.atomic ? "changes atomically" : "writes", mark.place, t.x, t.y, t.z, b % grid_size.x,
       b / grid_size.x % grid_size.y, b / grid_size.x / grid_size.y,
       !wrote ? "has read" : before.atomic ? "has changed atomically" : "has written", before.place);
}

// Where accesses to this page of global memory are noted; null where there is no more room to note them.
static Cell* page_cells(size_t page) {
  if (page == last_page) return last_cells;
  size_t i = page * 0x9e3779b97f4a7c15ull >> 50 & (TABLE - 1);
  while (table[i].cells && table[i].page != page) i = (i + 1) & (TABLE - 1);
  if (!table[i].cells) {
    if (pages == MOST) return nullptr;
    pages++;
    table[i].page = page;
    table[i].cells = cells(PAGE / WORD);
  }
  last_page = page;
  return last_cells = table[i].cells;
}

void touch(void* address, size_t size, Access access, void* pc) {
  u8* at = (u8*)address;
  if (!self || !launch->checked || (size_t)(at - (u8*)stacks) < STACK * THREADS) return;
  const char* memory = nullptr;
  u8* start = nullptr;
  Cell* noted = nullptr;
  if ((size_t)(at - launch->shared + GUARD) < dynamic_size + 2 * GUARD) {
    memory = "dynamic", start = launch->shared, noted = dynamic_cells;
    if (at < start || at + size > start + dynamic_size)
      fail("%s byte %ld of %zu bytes of dynamic shared memory%s@%lx", access == READ ? "reads" : "writes",
           (long)(at - start), dynamic_size, AT, place(pc));
  } else if ((size_t)(at - launch->library[1]) < static_size) {
    memory = "static", start = launch->library[1], noted = static_cells;
  } else if (within(at, launch->library[0], launch->library[2]) || within(at, &__ehdr_start, &_end)) {
    return;  // constants, threadIdx
  }
  Mark mark = {block_number, now, (unsigned)place(pc), (unsigned short)self->number, 0, access == ATOMIC};
  for (u8* end = at + size; at < end;) {
    unsigned first = (unsigned)((size_t)at % WORD), n = min_size(WORD - first, (size_t)(end - at));
    mark.bytes = (u8)(((1u << n) - 1) << first);
    Cell* cell = noted ? noted + (size_t)(at - start) / WORD : page_cells((size_t)at / PAGE);
    if (!cell) return;
    if (!noted) cell += (size_t)at % PAGE / WORD;
    else if (cell->write.block != block_number && cell->reader.block != block_number) *cell = {};
    if (!ordered(cell->write, mark.bytes) && !(mark.atomic && cell->write.atomic))
      race(cell->write, true, mark, access == READ, at, memory, (size_t)(at - start));
    Mark& reader = cell->reader;
    if (access != READ) {
      if (!ordered(reader, mark.bytes)) race(reader, false, mark, false, at, memory, (size_t)(at - start));
      if (!ordered(cell->other, mark.bytes)) race(cell->other, false, mark, false, at, memory, (size_t)(at - start));
      cell->write = mark;
    } else {
      bool elsewhere = reader.thread / 32 != mark.thread / 32 || reader.block != mark.block;
      bool another = reader.thread != mark.thread && ordered(cell->other, ALL);
      if (reader.block && (elsewhere || another)) cell->other = reader;
      reader = mark;
    }
    at += n;
  }
}

#define CPU_CUDA_HOOK(...) extern "C" CPU_CUDA_SHARED void __VA_ARGS__
#define CPU_CUDA_HOOKS(size)                                                                                           \
  CPU_CUDA_HOOK(__tsan_read##size)(void* at) { touch(at, size, READ, __builtin_return_address(0)); }                   \
  CPU_CUDA_HOOK(__tsan_write##size)(void* at) { touch(at, size, WRITE, __builtin_return_address(0)); }                 \
  CPU_CUDA_HOOK(__tsan_unaligned_read##size)(void* at) { touch(at, size, READ, __builtin_return_address(0)); }         \
  CPU_CUDA_HOOK(__tsan_unaligned_write##size)(void* at) { touch(at, size, WRITE, __builtin_return_address(0)); }
CPU_CUDA_HOOKS(1) CPU_CUDA_HOOKS(2) CPU_CUDA_HOOKS(4) CPU_CUDA_HOOKS(8) CPU_CUDA_HOOKS(16)
CPU_CUDA_HOOK(__tsan_read_range)(void* at, size_t n) { touch(at, n, READ, __builtin_return_address(0)); }
CPU_CUDA_HOOK(__tsan_write_range)(void* at, size_t n) { touch(at, n, WRITE, __builtin_return_address(0)); }
CPU_CUDA_HOOK(__tsan_init)() {}

// What C++ leaves undefined. Each of these is given the place in the source first.
struct Source { const char* file; unsigned line, column; };
#define CPU_CUDA_UNDEFINED(name, text) \
  CPU_CUDA_HOOK(__ubsan_handle_##name)(Source* at) { fail(text " (line %u)", at->line); }
CPU_CUDA_UNDEFINED(out_of_bounds, "index outside an array")
CPU_CUDA_UNDEFINED(add_overflow, "a sum of signed integers overflows")
CPU_CUDA_UNDEFINED(sub_overflow, "a difference of signed integers overflows")
CPU_CUDA_UNDEFINED(mul_overflow, "a product of signed integers overflows")
CPU_CUDA_UNDEFINED(negate_overflow, "a negated integer overflows")
CPU_CUDA_UNDEFINED(divrem_overflow, "integer division by zero")
CPU_CUDA_UNDEFINED(shift_out_of_bounds, "shift by more than the width")
CPU_CUDA_UNDEFINED(float_cast_overflow, "a float does not fit the integer that it becomes")
CPU_CUDA_HOOK(__ubsan_handle_type_mismatch_v1)(Source* at, void* address) {
  fail("access to %p, which is not aligned for its type (line %u)", address, at->line);
}
#undef CPU_CUDA_HOOK
#undef CPU_CUDA_HOOKS
#undef CPU_CUDA_UNDEFINED

}  // namespace cpu_cuda
