// Warp collectives. The last lane to come works out what each gets, so lanes may go on at different times.
#pragma once

namespace cpu_cuda {

static void check_group(Thread* lanes, unsigned group, unsigned mask) {
  const Thread& first = lanes[__builtin_ctz(group)];
  for (unsigned m = group; m; m &= m - 1) {
    const Thread& t = lanes[__builtin_ctz(m)];
    if (t.mask != mask)
      fail("warp divergence: lanes %u and %u wait with the masks %08x and %08x (lines %d and %d)", first.number % 32,
           t.number % 32, first.mask, t.mask, first.line, t.line);
    if (t.kind != first.kind || t.bytes != first.bytes)
      fail("warp divergence: lanes %u and %u wait at different collectives (lines %d and %d)", first.number % 32,
           t.number % 32, first.line, t.line);
  }
  if (first.kind == EXCHANGE && group != ALL) fail("warp divergence: an exchange with less than 32 lanes");
}

// The lanes of a mask go on once all that have not ended have come.
static void meet(unsigned warp, unsigned mask) {
  Warp& w = warps[warp];
  Thread* lanes = &threads[warp * 32];
  unsigned group = mask & w.alive, votes = 0;
  if (!group || (w.waiting & group) != group) return;
  check_group(lanes, group, mask);
  Kind kind = lanes[__builtin_ctz(group)].kind;
  if (kind == VOTE)
    for (unsigned m = group; m; m &= m - 1) votes |= lanes[__builtin_ctz(m)].vote << __builtin_ctz(m);
  for (unsigned m = group; m; m &= m - 1) {
    Thread& t = lanes[__builtin_ctz(m)];
    t.kind = NONE;
    if (kind == SHUFFLE) {
      if (group >> t.source & 1) memcpy(t.result, lanes[t.source].value, 16);
      else memset(t.result, 0xff, 16);
    } else if (kind == VOTE) {
      t.vote = votes;
    } else if (kind == MATCH) {
      t.vote = 0;
      for (unsigned k = group; k; k &= k - 1)
        if (!memcmp(t.value, lanes[__builtin_ctz(k)].value, 16)) t.vote |= 1u << __builtin_ctz(k);
    }
  }
  w.waiting &= ~group;
  w.ready |= group;
  ready_warps |= 1u << warp;
  if (kind == SYNC) warp_synced(warp, group);  // a shuffle and a vote do not order accesses to memory
}

void collective(Kind kind, unsigned mask, int line, size_t bytes) {
  unsigned warp = self->number / 32, bit = 1u << self->number % 32;
  if (!(mask & bit)) fail("warp divergence: lane %u is not in its mask %08x (line %d)", self->number % 32, mask, line);
  self->kind = kind;
  self->line = line;
  self->mask = mask;
  self->bytes = bytes;
  warps[warp].waiting |= bit;
  meet(warp, mask);
  next();
}

// Gives `bytes` of this lane and gets those of all 32 lanes, which stay until the lane's next rendezvous. Two buffers
// take turns: one is written again at the exchange after the next, when all lanes have come to the next.
const unsigned char* warp_exchange(const void* mine, size_t bytes, int line) {
  Warp& w = warps[self->number / 32];
  unsigned which = self->exchanges++ % 2;
  if (w.room[which] < bytes) {
    w.exchanged[which] = (unsigned char*)realloc(w.exchanged[which], 32 * bytes);
    w.room[which] = bytes;
  }
  unsigned char* all = w.exchanged[which];
  memcpy(all + self->number % 32 * bytes, mine, bytes);
  collective(EXCHANGE, ALL, line, bytes);
  return all;
}

}  // namespace cpu_cuda
