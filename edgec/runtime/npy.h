/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* Tensors in numpy's .npy files. */
#ifndef EDGEC_NPY_H
#define EDGEC_NPY_H

#include "edgec.h"

/* numpy's name of an element type ("<f4"); bfloat16 and narrow types are stored as raw bytes. */
const char *edgec_npy_dtype(int32_t dtype);

/* Reads `tensor` from the file into `data`. Returns NULL, or what is wrong. */
const char *edgec_npy_read(const char *path, const edgec_tensor *tensor, void *data);

/* Writes `tensor` to the file. Returns NULL, or what is wrong. */
const char *edgec_npy_write(const char *path, const edgec_tensor *tensor, const void *data);

#endif
