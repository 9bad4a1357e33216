/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* The floating-point environment of kernels: rounding to nearest, no exception unmasked. */
#ifndef EDGEC_ROUNDING_H
#define EDGEC_ROUNDING_H

#ifdef __x86_64__
#include <xmmintrin.h>

/* Kernels compute in vector registers alone. What the C library saves beside their control word,
 * the state of the x87 unit, takes a quarter of a microsecond to set. */
typedef unsigned edgec_rounding;

/* Sets the default; returns what was there before. */
static inline edgec_rounding edgec_round_to_nearest(void) {
  enum { ALL_EXCEPTIONS_MASKED = 0x1f80 };
  edgec_rounding before = _mm_getcsr();
  _mm_setcsr(ALL_EXCEPTIONS_MASKED);
  return before;
}

static inline void edgec_round_as_before(const edgec_rounding *before) { _mm_setcsr(*before); }
#else
#include <fenv.h>

typedef fenv_t edgec_rounding;

static inline edgec_rounding edgec_round_to_nearest(void) {
  edgec_rounding before;
  fegetenv(&before);
  fesetenv(FE_DFL_ENV);
  return before;
}

static inline void edgec_round_as_before(const edgec_rounding *before) { fesetenv(before); }
#endif
#endif
