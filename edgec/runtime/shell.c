/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * Commands for TVM's RPC servers, which load this as a library: a function that runs the shell
 * command in a tensor of bytes, the last of which is 0, and returns its exit status, or -1.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/wait.h>

#include "packed.h"
#include "runtime.h"

EDGEC_EXPORT int __tvm_ffi_edgec_shell(void *self, const any *arguments, int32_t count,
                                       any *result) {
  uint64_t size;
  const unsigned char *command = bytes_of(arguments, count, &size);
  (void)self;
  if (!command || !size || command[size - 1]) return give(result, -1);
  int status = system((const char *)command);
  return give(result, status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}
