/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * Trials for TVM's RPC servers, which load this as a library: a function that answers the request
 * of `trial.h` in a tensor of bytes and returns the size of the answer, and one that copies the
 * answer into another. Both return -1 when given anything else.
 */
#include "packed.h"
#include "trial.h"

static const unsigned char *answer;
static uint64_t answer_size;

EDGEC_EXPORT int __tvm_ffi_edgec_measure(void *self, const any *arguments, int32_t count,
                                         any *result) {
  uint64_t size;
  const unsigned char *request = bytes_of(arguments, count, &size);
  (void)self;
  if (!request) return give(result, -1);
  answer = edgec_answer(request, size, -1, &answer_size);
  return give(result, (int64_t)answer_size);
}

EDGEC_EXPORT int __tvm_ffi_edgec_measured(void *self, const any *arguments, int32_t count,
                                          any *result) {
  uint64_t size;
  unsigned char *wanted = bytes_of(arguments, count, &size);
  (void)self;
  if (!wanted || !answer || size != answer_size) return give(result, -1);
  memcpy(wanted, answer, size);
  return give(result, (int64_t)size);
}
