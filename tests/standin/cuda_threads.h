// Fibers: one for each thread of the block that runs, with a choice of who goes on at each rendezvous.
//
// A thread begins when it is first chosen, on the stack of one that has ended where there is one. So a kernel without
// barriers runs as a loop. The others switch from fiber to fiber directly: about ten nanoseconds.
#pragma once

namespace cpu_cuda {
constexpr size_t PAGE = 4096, STACK = 17 * PAGE, GUARD = 256;  // the lowest page of a stack cannot be touched

Thread* self;
Warp warps[WARPS];
uint3 block_index, block_size, grid_size;
ShimLaunch* launch;

static Thread threads[THREADS];
static Thread launcher;  // stands for run_block: it starts the first thread, and is come back to when all have ended
static char* stacks;
static char* free_stacks[THREADS];
static unsigned count, live, at_barrier, warp_count, ready_warps, barrier_votes, barrier_result, free_count;
static int barrier_line;
static unsigned long random_state;
static void* escape_buffer[8];

// Ends the launch with a message: the fibers are abandoned where they are.
__attribute__((noreturn, noinline)) static void escape() { __builtin_longjmp(escape_buffer, 1); }

void fail(const char* format, ...) {
  char* at = launch->error;
  int n = snprintf(at, 200, "kernel %s, block (%u, %u, %u)", launch->name, block_index.x, block_index.y, block_index.z);
  if (self) n += snprintf(at + n, 100, ", thread (%u, %u, %u)", self->index.x, self->index.y, self->index.z);
  n += snprintf(at + n, 8, ": ");
  va_list list;
  va_start(list, format);
  vsnprintf(at + n, sizeof launch->error - n, format, list);
  va_end(list);
  escape();
}

static inline unsigned long random_number() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state * 0x2545f4914f6cdd1dull >> 8;
}

// One bit of a set, by the order of the launch.
static inline unsigned choose(unsigned set) {
  if (launch->order == 0) return __builtin_ctz(set);
  if (launch->order == 1) return 31 - __builtin_clz(set);
  unsigned by = (unsigned)random_number() & 31;
  return (__builtin_ctz(set >> by | set << ((32 - by) & 31)) + by) & 31;
}

#ifndef CPU_CUDA_PORTABLE
extern "C" void cpu_cuda_switch(void** save, void* load) __attribute__((visibility("hidden")));
asm(".text\n.hidden cpu_cuda_switch\n.type cpu_cuda_switch,@function\ncpu_cuda_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size cpu_cuda_switch,.-cpu_cuda_switch\n");
static void go(Thread* from, Thread* to) { cpu_cuda_switch(&from->stack_pointer, to->stack_pointer); }
#else
static ucontext_t contexts[THREADS + 1];
static ucontext_t* context(Thread* t) { return &contexts[t == &launcher ? THREADS : t->number]; }
static void go(Thread* from, Thread* to) { swapcontext(context(from), context(to)); }
#endif

static void fiber();

static void prepare(Thread* to) {
  to->stack = free_stacks[--free_count];
#ifndef CPU_CUDA_PORTABLE
  void** top = (void**)((char*)to->stack + STACK - (to->number & 31) * 64);  // not all in the same lines of the cache
  *--top = nullptr;
  *--top = (void*)fiber;
  to->stack_pointer = top - 6;
#else
  ucontext_t* c = context(to);
  getcontext(c);
  c->uc_stack.ss_sp = (char*)to->stack + PAGE;
  c->uc_stack.ss_size = STACK - PAGE;
  c->uc_link = nullptr;
  makecontext(c, fiber, 0);
#endif
}

static void divergence() {
  unsigned barrier = 0, collective = 0;
  int line = 0, other = 0;
  for (unsigned i = 0; i < count; i++) {
    if (!(warps[i / 32].alive >> (i % 32) & 1)) continue;
    if (threads[i].kind == BARRIER) barrier++, line = threads[i].line;
    else collective++, other = threads[i].line;
  }
  char text[3][100] = {};
  if (barrier) snprintf(text[0], 100, ", %u wait at the barrier of line %d", barrier, line);
  if (collective) snprintf(text[1], 100, ", %u at the warp collective of line %d", collective, other);
  if (live < count) snprintf(text[2], 100, ", %u have left", count - live);
  self = nullptr;
  fail("barrier divergence: of %u threads%s%s%s", count, text[0], text[1], text[2]);
}

// Goes on with a thread that can run. The caller has written down what the present one waits for, if anything.
// In ascending and descending order a warp runs as far as it can before the next: that is how data are overtaken.
__attribute__((noinline)) static void next(bool leaving = false) {
  Thread* from = self;
  unsigned warp = from->number / 32;
  if (launch->order == 2 || !warps[warp].ready) {
    if (!ready_warps) {
      if (live) divergence();
      go(from, &launcher);
    }
    warp = choose(ready_warps);
  }
  unsigned lane = choose(warps[warp].ready);
  warps[warp].ready &= ~(1u << lane);
  if (!warps[warp].ready) ready_warps &= ~(1u << warp);
  Thread* to = self = &threads[warp * 32 + lane];
  if (to == from) return;
  if (!(warps[warp].started >> lane & 1)) {
    warps[warp].started |= 1u << lane;
    if (leaving) {
      to->stack = from->stack;
      return;
    }
    prepare(to);
  }
  if (leaving) free_stacks[free_count++] = (char*)from->stack;
  go(from, to);
}

static inline unsigned first_warps() { return warp_count == WARPS ? ALL : (1u << warp_count) - 1; }

static void block_synced();
static void meet(unsigned warp, unsigned mask);

unsigned barrier(int line, bool vote) {
  if (at_barrier == 0) barrier_line = line;
  if (line != barrier_line)
    fail("barrier divergence: waits at the barrier of line %d, others at that of line %d", line, barrier_line);
  self->kind = BARRIER;
  self->line = line;
  barrier_votes += vote;
  if (++at_barrier == live) {
    if (live != count) divergence();
    barrier_result = barrier_votes;
    barrier_votes = at_barrier = 0;
    for (unsigned w = 0; w < warp_count; w++) warps[w].ready = warps[w].alive;
    ready_warps = first_warps();
    block_synced();
  }
  next();
  self->kind = NONE;
  return barrier_result;
}

// A thread's life, and that of those that begin on its stack.
static void fiber() {
  for (;;) {
    launch->stub(launch->arguments);
    unsigned warp = self->number / 32, bit = 1u << self->number % 32;
    warps[warp].alive &= ~bit;
    live--;
    for (unsigned m = warps[warp].waiting; m; m &= m - 1) {
      unsigned mask = threads[warp * 32 + __builtin_ctz(m)].mask;
      if (mask & bit) meet(warp, mask);
    }
    if (live && at_barrier == live) divergence();
    next(true);
  }
}

static void run_block() {
  live = count;
  at_barrier = barrier_votes = 0;
  for (unsigned w = 0; w < warp_count; w++) {
    unsigned lanes = count - w * 32;
    warps[w].alive = warps[w].ready = lanes >= 32 ? ALL : (1u << lanes) - 1;
    warps[w].started = warps[w].waiting = 0;
  }
  ready_warps = first_warps();
  for (unsigned i = 0; i < count; i++) threads[i].kind = NONE, threads[i].exchanges = 0;
  free_count = count;
  for (unsigned i = 0; i < count; i++) free_stacks[count - 1 - i] = stacks + i * STACK;
  unsigned char* shared = launch->shared;
  memset(launch->library[1], 0xff, (size_t)(launch->library[2] - launch->library[1]));
  memset(shared, 0xff, launch->bytes);
  memset(shared - GUARD, 0xa5, GUARD);
  memset(shared + launch->bytes, 0xa5, GUARD);
  launcher.number = choose(ready_warps) * 32;
  self = &launcher;
  next();
  self = nullptr;
  for (size_t i = 0; i < GUARD; i++)
    if (shared[(long)i - (long)GUARD] != 0xa5 || shared[launch->bytes + i] != 0xa5)
      fail("wrote outside its %zu bytes of dynamic shared memory", launch->bytes);
}

}  // namespace cpu_cuda
