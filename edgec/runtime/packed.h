/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* How TVM calls functions of a library: tvm/ffi/c_api.h, dlpack/dlpack.h. */
#ifndef EDGEC_PACKED_H
#define EDGEC_PACKED_H

#include <stddef.h>
#include <stdint.h>

enum { ANY_INT = 1, ANY_TENSOR = 7 };

typedef struct any {
  int32_t type;
  uint32_t padding;
  union {
    int64_t number;
    void *pointer;
  } value;
} any;

typedef struct tensor { /* DLTensor */
  void *data;
  int32_t device_type, device;
  int32_t rank;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t offset;
} tensor;

/* The bytes of the one argument, if it is a tensor of them. */
static unsigned char *bytes_of(const any *arguments, int32_t count, uint64_t *size) {
  if (count != 1 || arguments->type != ANY_TENSOR) return NULL;
  const tensor *given = arguments->value.pointer;
  if (given->rank != 1 || given->bits != 8 || given->lanes != 1) return NULL;
  *size = (uint64_t)given->shape[0];
  return (unsigned char *)given->data + given->offset;
}

static int give(any *result, int64_t number) {
  result->type = ANY_INT;
  result->padding = 0;
  result->value.number = number;
  return 0;
}

#endif
