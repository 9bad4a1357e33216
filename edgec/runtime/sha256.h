/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
#ifndef EDGEC_SHA256_H
#define EDGEC_SHA256_H

#include <stddef.h>

/* Writes the SHA-256 (FIPS 180-4) of `size` bytes as 64 lower-case hexadecimal digits and a NUL. */
void edgec_sha256(const void *data, size_t size, char hex[65]);

#endif
