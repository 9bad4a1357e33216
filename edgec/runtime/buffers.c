/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* The buffers of a trial: each ends where memory ends, filled from a seed. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "trial.h"

static uint64_t next_random(uint64_t *state) { /* xorshift64* (Vigna, 2016) */
  *state ^= *state >> 12, *state ^= *state << 25, *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1du;
}

/* The bits of a real: of a magnitude from 2^-8 to 1, 2^(a third of the largest exponent) when
 * large, below the least normal number when denormal. */
static uint64_t real(const edgec_buffer *buffer, uint32_t pattern, uint64_t bits) {
  uint32_t mantissa = buffer->mantissa_bits, width = buffer->exponent_bits;
  uint64_t bias = ((uint64_t)1 << (width - 1)) - 1, least = bias > 8 ? bias - 8 : 1;
  uint64_t exponent = least + (bits >> 32) % (bias - least ? bias - least : 1);
  uint64_t sign = pattern == EDGEC_NEGATIVE ? 1 : bits >> 63;
  if (pattern == EDGEC_LARGE) exponent = bias + bias / 3;
  if (pattern == EDGEC_DENORMAL) exponent = 0;
  /* The low bits of what is drawn serve the mantissa, the high ones the rest. */
  uint64_t fraction = (mantissa > 31 ? bits * 0x9e3779b97f4a7c15u : bits) &
                      (((uint64_t)1 << mantissa) - 1);
  return sign << (width + mantissa) | exponent << mantissa | fraction;
}

static void fill(const edgec_buffer *buffer, uint32_t pattern, uint64_t seed,
                 unsigned char *data) {
  uint64_t state = seed * 0x9e3779b97f4a7c15u | 1, step = buffer->element_bytes;
  if (pattern == EDGEC_ZEROS || !step) {
    memset(data, 0, buffer->bytes);
    return;
  }
  for (uint64_t i = 0; i + step <= buffer->bytes; i += step) {
    uint64_t value = next_random(&state);
    if (buffer->fill == EDGEC_REAL)
      value = real(buffer, pattern, value);
    else if (buffer->fill == EDGEC_BITS)
      value >>= 63;
    memcpy(data + i, &value, step);
  }
}

/* Maps `bytes` so that the last of them, rounded up to a cache line, is the last of a page, and what
 * comes next must not be touched. */
static unsigned char *map(edgec_memory *memory, uint32_t index, uint64_t bytes) {
  enum { GUARD_BYTES = 1 << 20 };
  uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
  uint64_t usable = (edgec_align(bytes) + page - 1) / page * page;
  unsigned char *address =
    mmap(NULL, usable + GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return NULL;
  memory->mapped[index].address = address;
  memory->mapped[index].bytes = usable + GUARD_BYTES;
  if (mprotect(address, usable, PROT_READ | PROT_WRITE)) return NULL;
  return address + usable - edgec_align(bytes);
}

int edgec_memory_prepare(edgec_memory *memory, const edgec_trial *trial,
                         const edgec_buffer *buffers, const unsigned char *given) {
  uint64_t constants = 0, all = trial->threads * edgec_align(trial->scratch_bytes);
  for (uint32_t i = 0; i < trial->buffer_count; i++) {
    all += edgec_align(buffers[i].bytes);
    if (buffers[i].role == EDGEC_CONSTANT) constants += edgec_align(buffers[i].bytes);
  }
  memset(memory, 0, sizeof *memory);
  memory->count = trial->buffer_count;
  memory->copies = 1;
  if (all > trial->memory_bytes) return EDGEC_EXHAUSTED;
  if (constants && trial->cold_bytes > constants)
    memory->copies = (uint32_t)((trial->cold_bytes + constants - 1) / constants);
  if (memory->copies > 256) memory->copies = 256;

  for (uint32_t i = 0; i < trial->buffer_count; i++) {
    const edgec_buffer *buffer = &buffers[i];
    uint32_t copies = buffer->role == EDGEC_CONSTANT ? memory->copies : 1;
    uint64_t stride = edgec_align(buffer->bytes);
    unsigned char *data = memory->start[i] = map(memory, i, stride * copies);
    if (!data) return EDGEC_EXHAUSTED;
    if (copies > 1) memory->stride[i] = stride;
    if (buffer->role == EDGEC_RESULT) continue;
    if (buffer->fill == EDGEC_GIVEN) {
      memcpy(data, given, buffer->bytes);
      given += buffer->bytes;
    } else {
      fill(buffer, trial->pattern, trial->seed + i, data);
    }
    for (uint32_t copy = 1; copy < copies; copy++) memcpy(data + copy * stride, data, stride);
  }
  return EDGEC_MEASURED;
}

void edgec_memory_release(edgec_memory *memory) {
  for (uint32_t i = 0; i < memory->count; i++)
    if (memory->mapped[i].address) munmap(memory->mapped[i].address, memory->mapped[i].bytes);
  memset(memory, 0, sizeof *memory);
}
