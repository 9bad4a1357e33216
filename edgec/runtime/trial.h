/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * Trials: a kernel comes as an image, is run on buffers filled here, and its times go back.
 *
 * A request is one block of bytes, little-endian: an edgec_trial, its buffers, its fixups, the
 * contents of those buffers that bring their own, one after the other, and the image. The answer
 * is an edgec_outcome, the nanoseconds a call took in each burst (doubles), and the outputs where
 * they were asked for. `edgec/tune/wire.py` is the other side.
 */
#ifndef EDGEC_TRIAL_H
#define EDGEC_TRIAL_H

#include "runtime.h"

enum { EDGEC_TRIAL_VERSION = 1, EDGEC_MAX_PARAMETERS = 64 };

/* The kind of a request: about this machine, or a trial. The answer to the first is text, a line
 * for each fact, "imports" the last; its request goes on with the CPU features that are wanted. */
enum { EDGEC_ASK_HOST = 0, EDGEC_ASK_TRIAL = 1 };

/* How a trial ended. `code` has the signal that ended it, or what the kernel returned. */
enum {
  EDGEC_MEASURED = 0,
  EDGEC_CRASHED = 1,
  EDGEC_HUNG = 2,
  EDGEC_MALFORMED = 3,
  EDGEC_EXHAUSTED = 4, /* more memory than the limit, or than there is */
  EDGEC_RETURNED = 5,  /* not zero */
  EDGEC_SHORT = 6      /* of scratch memory */
};

typedef struct edgec_trial {
  uint32_t kind, version;
  uint32_t threads;
  int32_t cpu; /* the one CPU to run on; -1: any */
  uint32_t wants_outputs;
  uint32_t pattern; /* of floats, see below */
  uint32_t junk;    /* the byte that outputs are filled with before */
  uint32_t bursts;  /* at most */
  uint32_t buffer_count, fixup_count;
  uint64_t burst_ns;  /* how long a burst lasts at least; one call lasts as long as it does */
  uint64_t cutoff_ns; /* a kernel that takes longer is called a few times only; 0: never */
  uint64_t limit_ns;  /* of the whole trial */
  uint64_t memory_bytes;  /* of all buffers */
  uint64_t scratch_bytes; /* per thread */
  uint64_t cold_bytes;    /* constants are copied to fill so much, each call uses the next copy */
  uint64_t seed;
  uint64_t image_bytes, text_bytes, entry; /* text is read and executed, the rest written */
} edgec_trial;

enum { EDGEC_VARIABLE = 0, EDGEC_CONSTANT = 1, EDGEC_RESULT = 2 };     /* the role of a buffer */
enum { EDGEC_GIVEN = 0, EDGEC_BYTES = 1, EDGEC_BITS = 2, EDGEC_REAL = 3 }; /* how it is filled */
/* Patterns of reals. An integer is zero in the second, else drawn from all its values when it has
 * 8 bits, from 0 and 1 when it has more, for those are often indices. */
enum { EDGEC_RANDOM = 0, EDGEC_ZEROS = 1, EDGEC_LARGE = 2, EDGEC_DENORMAL = 3, EDGEC_NEGATIVE = 4 };

typedef struct edgec_buffer {
  uint64_t bytes;
  uint32_t role, fill;
  uint32_t element_bytes;
  uint32_t exponent_bits, mantissa_bits; /* of a real */
  int32_t over; /* of a result: it lies where this buffer was and starts as it; -1: nowhere */
} edgec_buffer;

/* Adds to the 8 bytes at `offset` of the image: where it is loaded (import 0), or the address of
 * an import, numbered from 1 as in the text about this machine. */
typedef struct edgec_fixup {
  uint32_t import, offset;
} edgec_fixup;

typedef struct edgec_outcome {
  uint32_t status;
  int32_t code;
  uint32_t bursts, calls; /* calls of each burst */
  uint64_t prepare_ns, run_ns;
} edgec_outcome;

/* A request, taken apart. */
typedef struct edgec_request {
  const edgec_trial *trial;
  const edgec_buffer *buffers;
  const edgec_fixup *fixups;
  const unsigned char *given, *image;
  uint64_t given_bytes, output_bytes;
} edgec_request;

/* Buffers as prepared for a kernel, kept until another comes. */
typedef struct edgec_memory {
  uint32_t count, copies;
  unsigned char *start[EDGEC_MAX_PARAMETERS]; /* the first copy */
  uint64_t stride[EDGEC_MAX_PARAMETERS];      /* to the next copy; 0: there is one */
  struct { void *address; size_t bytes; } mapped[EDGEC_MAX_PARAMETERS];
} edgec_memory;

/* Maps and fills buffers; 0, or why not. `given` has the contents of those that bring their own. */
EDGEC_HIDDEN int edgec_memory_prepare(edgec_memory *, const edgec_trial *, const edgec_buffer *,
                                      const unsigned char *given);
EDGEC_HIDDEN void edgec_memory_release(edgec_memory *);

/* The names of imports, separated by one space. */
EDGEC_HIDDEN extern const char edgec_imports[];
/* Loads an image; NULL if there is no memory. */
EDGEC_HIDDEN unsigned char *edgec_image_load(const edgec_trial *, const edgec_fixup *,
                                             const unsigned char *image);

/* Runs a trial in this process, which may not survive it; the times, and outputs where they were
 * asked for, go behind `outcome`. */
EDGEC_HIDDEN void edgec_run_trial(const edgec_request *, const edgec_memory *, edgec_outcome *);

/* Answers a request in memory that the next answer reuses. `peer` is the file the request came
 * from, or -1: when it is hung up, a trial is broken off and NULL returned. */
EDGEC_HIDDEN const unsigned char *edgec_answer(const unsigned char *request, uint64_t size,
                                               int peer, uint64_t *answer_size);
#endif
