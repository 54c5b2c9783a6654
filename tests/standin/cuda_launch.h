// A launch, as Python calls it: all blocks, one after another. Errors come back as text.
#pragma once

namespace cpu_cuda {

static void on_signal(int number, siginfo_t* info, void* context) {
  unsigned long at = 0;
#ifdef __x86_64__
  at = place((void*)((ucontext_t*)context)->uc_mcontext.gregs[REG_RIP]);
#endif
  if (number == SIGVTALRM) fail("ran for more than %d ms: it does not end%s@%lx", launch->milliseconds, AT, at);
  if (number == SIGFPE) fail("integer division by zero%s@%lx", AT, at);
  if (number == SIGILL) fail("illegal instruction%s@%lx", AT, at);
  fail("memory fault at address %p%s@%lx", info->si_addr, AT, at);
}

static char* make_stacks() {
  int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  char* at = (char*)mmap(nullptr, STACK * THREADS, protection, flags, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  for (unsigned i = 0; i < THREADS; i++) mprotect(at + i * STACK, PAGE, PROT_NONE);
  return at;
}

static unsigned char signal_stack[1 << 16];

// Faults of a kernel, and its taking too long, become messages while this stands. Python's handlers come back after.
struct Signals {
  static constexpr int N = 5, numbers[N] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM};
  struct sigaction before[N];
  stack_t stack_before;
  timer_t timer;

  void set(int milliseconds) {
    stack_t stack = {};
    stack.ss_sp = signal_stack;
    stack.ss_size = sizeof signal_stack;
    sigaltstack(&stack, &stack_before);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int i = 0; i < N; i++) sigaction(numbers[i], &action, &before[i]);
    struct sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGVTALRM;
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer);
    struct itimerspec limit = {};
    limit.it_value.tv_sec = milliseconds / 1000;
    limit.it_value.tv_nsec = milliseconds % 1000 * 1000000;
    timer_settime(timer, 0, &limit, nullptr);
  }
  void reset() {
    timer_delete(timer);
    for (int i = 0; i < N; i++) sigaction(numbers[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
  }
};

// A permutation of the blocks, by the seed.
static unsigned* shuffled(size_t n) {
  unsigned* order = (unsigned*)malloc(n * sizeof(unsigned));
  for (size_t i = 0; i < n; i++) {
    size_t j = random_number() % (i + 1);
    order[i] = order[j];
    order[j] = (unsigned)i;
  }
  return order;
}

static void run_blocks(size_t n, const unsigned* order) {
  for (size_t i = 0; i < n; i++) {
    size_t b = order ? order[i] : launch->order == 1 ? n - 1 - i : i;
    block_index = {(unsigned)(b % grid_size.x), (unsigned)(b / grid_size.x % grid_size.y),
                   (unsigned)(b / grid_size.x / grid_size.y)};
    block_begins(b);
    run_block();
  }
}

static Signals signals;  // outlives the jump out of a failed launch, and so do the next two
static unsigned* block_order;
static int failed;

// 0, or 1 with a message in `error`.
static int run(ShimLaunch* given) {
  launch = given;
  self = nullptr;
  grid_size = {launch->grid[0], launch->grid[1], launch->grid[2]};
  block_size = {launch->block[0], launch->block[1], launch->block[2]};
  block_index = {0, 0, 0};
  random_state = (launch->seed + 1) * 0x9e3779b97f4a7c15ull | 1;
  count = block_size.x * block_size.y * block_size.z;
  warp_count = (count + 31) / 32;
  for (unsigned i = 0; i < count; i++) {
    threads[i].number = i;
    threads[i].index = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
  }
  if (!stacks) stacks = make_stacks();
  size_t blocks = (size_t)grid_size.x * grid_size.y * grid_size.z;
  block_order = launch->order == 2 ? shuffled(blocks) : nullptr;
  failed = 0;
  signals.set(launch->milliseconds);
  if (__builtin_setjmp(escape_buffer) == 0) {
    if (!stacks) fail("no memory for the stacks of the threads");
    checks_begin(blocks);
    run_blocks(blocks, block_order);
  } else {
    failed = 1;
  }
  self = nullptr;
  signals.reset();
  checks_end();
  free(block_order);
  return failed;
}

}  // namespace cpu_cuda

extern "C" CPU_CUDA_SHARED int shim_run(ShimLaunch* launch) { return cpu_cuda::run(launch); }
