/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* Images: kernels linked to all but these functions of ours, loaded without a linker. */
#define _GNU_SOURCE
#include <math.h>
#include <sys/mman.h>

#include "trial.h"

extern int (*__TVMBackendParallelLaunch)(edgec_task, void *, int);
extern void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
extern int (*__TVMBackendFreeWorkspace)(int, int, void *);

#define FUNCTIONS(X)                                                                            \
  X(memcpy) X(memmove) X(memset) X(acos) X(acosf) X(acosh) X(acoshf) X(asin) X(asinf) X(asinh)    \
  X(asinhf) X(atan) X(atan2) X(atan2f) X(atanf) X(atanh) X(atanhf) X(cbrt) X(cbrtf) X(ceil)       \
  X(ceilf) X(copysign) X(copysignf) X(cos) X(cosf) X(cosh) X(coshf) X(erf) X(erff) X(exp)         \
  X(exp2) X(exp2f) X(expf) X(expm1) X(expm1f) X(fabs) X(fabsf) X(floor) X(floorf) X(fma)          \
  X(fmaf) X(fmax) X(fmaxf) X(fmin) X(fminf) X(fmod) X(fmodf) X(hypot) X(hypotf) X(ldexp)          \
  X(ldexpf) X(log) X(log10) X(log10f) X(log1p) X(log1pf) X(log2) X(log2f) X(logf) X(nearbyint)    \
  X(nearbyintf) X(nextafter) X(nextafterf) X(pow) X(powf) X(rint) X(rintf) X(round)               \
  X(roundf) X(sin) X(sinf) X(sinh) X(sinhf) X(sqrt) X(sqrtf) X(tan) X(tanf) X(tanh) X(tanhf)      \
  X(tgamma) X(tgammaf) X(trunc) X(truncf)
#define NAME(function) #function " "
#define ADDRESS(function) (uintptr_t)(function),

const char edgec_imports[] = FUNCTIONS(NAME)
  "__TVMBackendParallelLaunch __TVMBackendAllocWorkspace __TVMBackendFreeWorkspace";

unsigned char *edgec_image_load(const edgec_trial *trial, const edgec_fixup *fixups,
                                const unsigned char *image) {
  const uintptr_t imports[] = {
    0, FUNCTIONS(ADDRESS) (uintptr_t)__TVMBackendParallelLaunch,
    (uintptr_t)__TVMBackendAllocWorkspace, (uintptr_t)__TVMBackendFreeWorkspace};
  unsigned char *base = mmap(NULL, trial->image_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return NULL;
  memcpy(base, image, trial->image_bytes);
  for (uint32_t i = 0; i < trial->fixup_count; i++) {
    uint64_t value;
    if (fixups[i].import >= sizeof imports / sizeof *imports) return NULL;
    memcpy(&value, base + fixups[i].offset, sizeof value);
    value += fixups[i].import ? imports[fixups[i].import] : (uintptr_t)base;
    memcpy(base + fixups[i].offset, &value, sizeof value);
  }
  if (mprotect(base, trial->text_bytes, PROT_READ | PROT_EXEC)) return NULL;
  __builtin___clear_cache((char *)base, (char *)base + trial->text_bytes);
  return base;
}
