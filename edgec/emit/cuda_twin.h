/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * CUDA C as C++ of the host: the threads of a block take turns (cuda_twin.c). What a warp does
 * together, it does through cells that all its threads fill before any of them reads.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define alignas(...)
#define EDGEC_MEMBER

struct edgec_dim {
  uint32_t x, y, z;
};

extern "C" {
extern edgec_dim threadIdx, blockIdx, blockDim, gridDim;
void edgec_twin_barrier(void);
/* Stores this thread's `count` words and returns where those of thread 0 of its warp lie, each
 * thread's 16 words after the one before, once all threads of the warp have stored theirs. */
const uint32_t *edgec_twin_exchange(const uint32_t *words, uint32_t count);
}

#define __syncthreads() edgec_twin_barrier()
#define __syncwarp() ((void)edgec_twin_exchange(nullptr, 0))
#define __activemask() 0xffffffffu

static inline uint32_t edgec_twin_lane(void) {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

template <typename T>
static inline T edgec_twin_read(T value, uint32_t lane) {
  uint32_t words[2] = {0, 0};
  static_assert(sizeof value <= sizeof words, "a shuffle of more than 64 bits");
  memcpy(words, &value, sizeof value);
  memcpy(&value, edgec_twin_exchange(words, 2) + 16 * lane, sizeof value);
  return value;
}

template <typename T>
static inline T __shfl_sync(uint32_t, T value, int lane, int width) {
  uint32_t own = edgec_twin_lane();
  return edgec_twin_read(value, own / width * width + lane % width);
}

template <typename T>
static inline T __shfl_down_sync(uint32_t, T value, uint32_t delta, int width) {
  uint32_t own = edgec_twin_lane();
  return edgec_twin_read(value, own % width + delta < (uint32_t)width ? own + delta : own);
}

template <typename T>
static inline T __shfl_xor_sync(uint32_t, T value, int mask) {
  return edgec_twin_read(value, edgec_twin_lane() ^ mask);
}

template <typename T>
static inline T max(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
static inline T min(T a, T b) {
  return a < b ? a : b;
}
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline float min(float a, float b) { return fminf(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline float edgec_rsqrtf(float value) { return 1.0f / sqrtf(value); }
static inline float edgec_exp10f(float value) { return powf(10.0f, value); }
#define rsqrtf edgec_rsqrtf
#define exp10f edgec_exp10f
static inline int __float2int_rn(float value) { return (int)rintf(value); }
static inline int __popc(uint32_t value) { return __builtin_popcount(value); }
static inline int __clz(int value) { return value ? __builtin_clz((uint32_t)value) : 32; }

static inline float __int_as_float(int bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
static inline int __float_as_int(float value) {
  int bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
static inline double __longlong_as_double(long long bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float edgec_from_half(uint16_t bits) {
  _Float16 value;
  memcpy(&value, &bits, sizeof value);
  return (float)value;
}
static inline uint16_t edgec_to_half(float value) {
  _Float16 narrow = (_Float16)value;
  uint16_t bits;
  memcpy(&bits, &narrow, sizeof bits);
  return bits;
}
