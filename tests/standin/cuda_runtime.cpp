// The runtime: compiled once, and used by the libraries of all kernels in a process.
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef __x86_64__
#define CPU_CUDA_PORTABLE  // contexts of the C library, which take a system call: fifty times slower
#endif

#include "cuda_state.h"

#include "cuda_threads.h"
#include "cuda_checks.h"
#include "cuda_warps.h"
#include "cuda_launch.h"
