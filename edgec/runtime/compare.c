/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* Element types: their size, and the comparison of the self-test. */
#include <math.h>

#include "runtime.h"

uint32_t edgec_element_bytes(int32_t dtype) {
  switch (dtype) {
    case EDGEC_UINT8: case EDGEC_INT8: case EDGEC_BOOL: case EDGEC_UINT4: case EDGEC_INT4:
      return 1;
    case EDGEC_UINT16: case EDGEC_INT16: case EDGEC_FLOAT16: case EDGEC_BFLOAT16:
      return 2;
    case EDGEC_FLOAT32: case EDGEC_INT32: case EDGEC_UINT32:
      return 4;
    case EDGEC_FLOAT64: case EDGEC_INT64: case EDGEC_UINT64:
      return 8;
    default:
      return 0;
  }
}

static double from_float16(uint16_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value;
  if (exponent == 31)
    value = fraction ? NAN : INFINITY;
  else
    value = ldexp(exponent ? fraction + 1024 : fraction, (exponent ? exponent : 1) - 25);
  return bits >> 15 ? -value : value;
}

static double element(int32_t dtype, const unsigned char *p) {
#define AS(TYPE) do { TYPE value; memcpy(&value, p, sizeof value); return (double)value; } while (0)
  uint16_t half;
  uint32_t word;
  float single;
  switch (dtype) {
    case EDGEC_FLOAT32: AS(float);
    case EDGEC_FLOAT64: AS(double);
    case EDGEC_INT8: AS(int8_t);
    case EDGEC_UINT16: AS(uint16_t);
    case EDGEC_INT16: AS(int16_t);
    case EDGEC_INT32: AS(int32_t);
    case EDGEC_UINT32: AS(uint32_t);
    case EDGEC_INT64: AS(int64_t);
    case EDGEC_UINT64: AS(uint64_t);
    case EDGEC_FLOAT16:
      memcpy(&half, p, sizeof half);
      return from_float16(half);
    case EDGEC_BFLOAT16:
      memcpy(&half, p, sizeof half);
      word = (uint32_t)half << 16;
      memcpy(&single, &word, sizeof single);
      return single;
    default: AS(uint8_t);
  }
#undef AS
}

int64_t edgec_first_difference(const edgec_tensor *tensor, const void *got, const void *want,
                               const edgec_tolerance *tolerance, double values[2]) {
  const unsigned char *g = got, *w = want;
  uint32_t size = edgec_element_bytes(tensor->dtype);
  for (uint64_t i = 0; i < tensor->bytes / size; i++, g += size, w += size) {
    if (!memcmp(g, w, size)) continue;
    double a = values[0] = element(tensor->dtype, g), b = values[1] = element(tensor->dtype, w);
    if (isnan(a) && isnan(b)) continue;
    if (a == b && tensor->dtype != EDGEC_INT64 && tensor->dtype != EDGEC_UINT64) continue;
    if (fabs(a - b) <= tolerance->atol + tolerance->rtol * fabs(b) && a != b && isfinite(b)) continue;
    return (int64_t)i;
  }
  return -1;
}
