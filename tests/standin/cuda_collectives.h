// Warp shuffles and votes, as templates over the value's type; the rendezvous itself is the runtime's.
#pragma once

// Not to be instrumented: its accesses to memory are none of the kernel's.
#define CPU_CUDA_INTERNAL __attribute__((no_sanitize("thread", "undefined")))

namespace cpu_cuda {

template <class T>
CPU_CUDA_INTERNAL static void put(const T& value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a collective takes 4 or 8 bytes");
  memset(self->value, 0, 16);
  memcpy(self->value, &value, sizeof(T));
}

template <class T>
CPU_CUDA_INTERNAL static T shuffle(int line, unsigned mask, T value, unsigned source) {
  put(value);
  self->source = source;
  collective(SHUFFLE, mask, line, sizeof(T));
  memcpy(&value, self->result, sizeof(T));
  return value;
}

// Which lane each variant reads: "Warp Shuffle Functions" in the CUDA C++ programming guide.
template <class T>
CPU_CUDA_INTERNAL static T shuffle_index(int line, unsigned mask, T value, int source, int width = 32) {
  unsigned lane = self->number % 32, inside = (unsigned)width - 1;
  return shuffle(line, mask, value, (lane & ~inside) | ((unsigned)source & inside));
}
template <class T>
CPU_CUDA_INTERNAL static T shuffle_up(int line, unsigned mask, T value, unsigned by, int width = 32) {
  unsigned lane = self->number % 32, inside = (unsigned)width - 1;
  return shuffle(line, mask, value, (lane & inside) < by ? lane : lane - by);
}
template <class T>
CPU_CUDA_INTERNAL static T shuffle_down(int line, unsigned mask, T value, unsigned by, int width = 32) {
  unsigned lane = self->number % 32, inside = (unsigned)width - 1;
  return shuffle(line, mask, value, (lane & inside) + by > inside ? lane : lane + by);
}
template <class T>
CPU_CUDA_INTERNAL static T shuffle_xor(int line, unsigned mask, T value, int with, int width = 32) {
  unsigned lane = self->number % 32, inside = (unsigned)width - 1, other = lane ^ (unsigned)with;
  return shuffle(line, mask, value, other > (lane | inside) ? lane : other % 32);
}

CPU_CUDA_INTERNAL static unsigned ballot(int line, unsigned mask, bool vote) {
  self->vote = vote;
  collective(VOTE, mask, line);
  return self->vote;
}

template <class T>
CPU_CUDA_INTERNAL static unsigned match(int line, unsigned mask, T value) {
  put(value);
  collective(MATCH, mask, line, sizeof(T));
  return self->vote;
}

CPU_CUDA_INTERNAL static unsigned alive_in(unsigned mask) { return mask & warps[self->number / 32].alive; }
static unsigned mask_or_all(unsigned mask = ALL) { return mask; }

}  // namespace cpu_cuda
