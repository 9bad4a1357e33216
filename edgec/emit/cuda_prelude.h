/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * What stands before every kernel, for NVRTC and, with EDGEC_TWIN, for a C++ compiler of the host
 * (cuda_twin.h): the types and functions that TVM's code generator takes for granted. No header of
 * CUDA is needed.
 */
#ifdef EDGEC_TWIN
#include "cuda_twin.h"
#else
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define EDGEC_MEMBER __device__ __forceinline__
#endif
typedef unsigned int uint;
typedef unsigned char uchar;
typedef unsigned short ushort;

/* What TVM writes for NaN and infinity, and for its fast and less exact functions. */
#define CUDART_NAN_F __int_as_float(0x7fc00000)
#define CUDART_INF_F __int_as_float(0x7f800000)
#define CUDART_NAN __longlong_as_double(0x7ff8000000000000ll)
#define CUDART_INF __longlong_as_double(0x7ff0000000000000ll)
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf

#define EDGEC_INLINE static __device__ __forceinline__

#ifndef EDGEC_TWIN
EDGEC_INLINE float edgec_from_half(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
EDGEC_INLINE uint16_t edgec_to_half(float value) {
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif

/* Four bytes as one number, the first lowest; the sum of four products of bytes, a's without a sign. */
EDGEC_INLINE int edgec_quad(int a, int b, int c, int d) {
  return (a & 255) | (b & 255) << 8 | (c & 255) << 16 | (int)((uint)d << 24);
}
EDGEC_INLINE int edgec_add_product(int a, int b, int sum) {
#ifdef EDGEC_TWIN
  for (int i = 0; i < 4; i++) sum += (int)((uint)a >> 8 * i & 255) * (int)(int8_t)(b >> 8 * i);
#else
  asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum) : "r"(a), "r"(b));
#endif
  return sum;
}
EDGEC_INLINE int edgec_dot4(int a, int b) { return edgec_add_product(a, b, 0); }
EDGEC_INLINE float edgec_add_product(float a, float b, float sum) { return a * b + sum; }

/* Half precision, computed in single and rounded: exact for one operation. */
struct half {
  uint16_t bits;
  __device__ half() = default;
  EDGEC_MEMBER half(float value) : bits(edgec_to_half(value)) {}
  EDGEC_MEMBER operator float() const { return edgec_from_half(bits); }
  EDGEC_MEMBER half &operator=(float value) {
    bits = edgec_to_half(value);
    return *this;
  }
};
EDGEC_INLINE half __float2half_rn(float value) { return half(value); }
EDGEC_INLINE half __ushort_as_half(ushort bits) {
  half value;
  value.bits = bits;
  return value;
}
#define EDGEC_HALF(OPERATOR) \
  EDGEC_INLINE half operator OPERATOR(half a, half b) { return half((float)a OPERATOR(float) b); }
EDGEC_HALF(+) EDGEC_HALF(-) EDGEC_HALF(*) EDGEC_HALF(/)
#undef EDGEC_HALF
EDGEC_INLINE half operator-(half a) { return half(-(float)a); }
#define EDGEC_HALF(OPERATOR) \
  EDGEC_INLINE bool operator OPERATOR(half a, half b) { return (float)a OPERATOR(float) b; }
EDGEC_HALF(<) EDGEC_HALF(>) EDGEC_HALF(<=) EDGEC_HALF(>=) EDGEC_HALF(==) EDGEC_HALF(!=)
#undef EDGEC_HALF
EDGEC_INLINE half max(half a, half b) { return a > b ? a : b; }
EDGEC_INLINE half min(half a, half b) { return a < b ? a : b; }
EDGEC_INLINE half __habs(half a) { return half(fabsf(a)); }
#define EDGEC_HALF(NAME, FUNCTION) \
  EDGEC_INLINE half NAME(half a) { return half(FUNCTION((float)a)); }
EDGEC_HALF(hexp, expf) EDGEC_HALF(hexp2, exp2f) EDGEC_HALF(hexp10, exp10f) EDGEC_HALF(hlog, logf)
EDGEC_HALF(hlog2, log2f) EDGEC_HALF(hlog10, log10f) EDGEC_HALF(hsqrt, sqrtf)
EDGEC_HALF(hrsqrt, rsqrtf) EDGEC_HALF(hceil, ceilf) EDGEC_HALF(hfloor, floorf)
EDGEC_HALF(hrint, rintf) EDGEC_HALF(htrunc, truncf) EDGEC_HALF(hcos, cosf) EDGEC_HALF(hsin, sinf)
EDGEC_HALF(htanh, tanhf) EDGEC_HALF(htan, tanf) EDGEC_HALF(hatan, atanf) EDGEC_HALF(herf, erff)
EDGEC_HALF(hround, roundf)
#undef EDGEC_HALF
EDGEC_INLINE half hpow(half a, half b) { return half(powf(a, b)); }
