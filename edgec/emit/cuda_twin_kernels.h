/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* The kernels that a twin of the driver has, generated beside it. */
#ifndef EDGEC_CUDA_TWIN_KERNELS_H
#define EDGEC_CUDA_TWIN_KERNELS_H

#include <stdint.h>

typedef struct edgec_twin_kernel {
  const char *name;
  void (*call)(void *const *pointers);
  uint32_t pointers;
  int together; /* its threads wait for one another */
} edgec_twin_kernel;

extern const edgec_twin_kernel edgec_twin_kernels[]; /* ends with a name of NULL */
extern const int edgec_twin_capability, edgec_twin_toolkit;
#endif
