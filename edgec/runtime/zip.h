/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* Reading of artifacts: ZIP files whose members are stored, not compressed. */
#ifndef EDGEC_ZIP_H
#define EDGEC_ZIP_H

#include <stddef.h>

typedef struct edgec_span {
  const unsigned char *data;
  size_t size;
} edgec_span;

/* Finds the stored member of `file` whose SHA-256 is `hex`, whatever its name. Returns 1 when it is
 * there, 0 when it is not, -1 when the file is no ZIP file or a damaged one. */
int edgec_zip_find(edgec_span file, const char *hex, edgec_span *member);

#endif
