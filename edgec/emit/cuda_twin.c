/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * A driver without a GPU: the functions of libcuda that edgec calls, on the CPU, so that the very
 * program that runs on a board can be checked without one. Kernels are the same CUDA C compiled for
 * the host (cuda_twin.h); addresses of its memory have a bit that no pointer of the host has, so
 * that whoever mixes them up crashes.
 *
 * For tests it counts calls, and takes its properties from the environment:
 *   EDGEC_TWIN_LOG=FILE         appends each call, one a line
 *   EDGEC_TWIN_ARCH=87          the capability; default: that of the code it is given
 *   EDGEC_TWIN_DRIVER=12060     the version
 *   EDGEC_TWIN_INTEGRATED=1     shares the host's memory
 *   EDGEC_TWIN_FAIL=NAME:CODE   what a function returns instead of doing its work
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cuda_twin_kernels.h"

#define EXPORT __attribute__((visibility("default")))

typedef int CUresult;
typedef uint64_t CUdeviceptr;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_BINARY = 209, NOT_FOUND = 500 };
static const uint64_t TAG = 1ull << 62;

/* --- threads of a block, taking turns --------------------------------------------------------- */

typedef struct dim {
  uint32_t x, y, z;
} dim;
__attribute__((visibility("hidden"))) dim threadIdx, blockIdx, blockDim, gridDim;

enum { MOST_THREADS = 1024, STACK_BYTES = 128 << 10, WORDS = 16, WARP = 32 };
enum { READY, AT_BARRIER, DONE };

static struct fiber {
  void *stack; /* its pointer, while it does not run */
  int state;
  uint32_t turn;
} fibers[MOST_THREADS];
static void *scheduler;
static uint32_t current, thread_count;
static unsigned char *stacks;
static uint32_t cells[2][MOST_THREADS * WORDS];
static void (*running)(void *const *);
static void *const *arguments;

/* Saves the registers that a call preserves, and the stack pointer in *from; goes on with `to`. */
void edgec_twin_switch(void **from, void *to) __attribute__((visibility("hidden")));
#if defined(__x86_64__)
__asm__(
  ".globl edgec_twin_switch\n"
  ".hidden edgec_twin_switch\n"
  "edgec_twin_switch:\n"
  "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
  "  mov %rsp, (%rdi)\n"
  "  mov %rsi, %rsp\n"
  "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
  "  ret\n");
enum { SAVED_WORDS = 7 }; /* six registers, the return address */
enum { ENTRY_WORD = 6 };
#elif defined(__aarch64__)
__asm__(
  ".globl edgec_twin_switch\n"
  ".hidden edgec_twin_switch\n"
  "edgec_twin_switch:\n"
  "  sub sp, sp, #160\n"
  "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
  "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
  "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n"
  "  stp d14, d15, [sp, #144]\n"
  "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
  "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
  "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
  "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n  ldp d12, d13, [sp, #128]\n"
  "  ldp d14, d15, [sp, #144]\n"
  "  add sp, sp, #160\n  ret\n");
enum { SAVED_WORDS = 20 };
enum { ENTRY_WORD = 11 };
#else
#error "no way to switch between threads is known for this processor"
#endif

static void yield(void) { edgec_twin_switch(&fibers[current].stack, scheduler); }

static void body(void) {
  running(arguments);
  fibers[current].state = DONE;
  yield();
}

__attribute__((visibility("hidden"))) void edgec_twin_barrier(void) {
  fibers[current].state = AT_BARRIER;
  yield();
}

__attribute__((visibility("hidden"))) const uint32_t *edgec_twin_exchange(const uint32_t *words,
                                                                         uint32_t count) {
  uint32_t me = current, side = fibers[me].turn++ & 1;
  if (count) memcpy(&cells[side][me * WORDS], words, count * sizeof *words);
  yield();
  return &cells[side][me / WARP * WARP * WORDS];
}

static void place_thread(uint32_t number) {
  current = number;
  threadIdx.x = number % blockDim.x;
  threadIdx.y = number / blockDim.x % blockDim.y;
  threadIdx.z = number / blockDim.x / blockDim.y;
}

/* All threads of a block that wait for one another. */
static void run_together(void) {
  if (!stacks)
    stacks = mmap(NULL, (size_t)MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  for (uint32_t i = 0; i < thread_count; i++) {
    void **top = (void **)(stacks + (size_t)(i + 1) * STACK_BYTES - 64);
    memset(top - SAVED_WORDS - 1, 0, (SAVED_WORDS + 1) * sizeof *top);
    fibers[i].stack = top - SAVED_WORDS - 1;
    ((void **)fibers[i].stack)[ENTRY_WORD] = (void *)body;
    fibers[i].state = READY;
    fibers[i].turn = 0;
  }
  for (uint32_t done = 0; done < thread_count;) {
    uint32_t ready = 0;
    for (uint32_t i = 0; i < thread_count; i++) {
      if (fibers[i].state != READY) continue;
      ready++;
      place_thread(i);
      edgec_twin_switch(&scheduler, fibers[i].stack);
      done += fibers[i].state == DONE;
    }
    if (!ready)
      for (uint32_t i = 0; i < thread_count; i++)
        if (fibers[i].state == AT_BARRIER) fibers[i].state = READY;
  }
}

static void run_grid(const edgec_twin_kernel *kernel) {
  running = kernel->call;
  thread_count = blockDim.x * blockDim.y * blockDim.z;
  for (blockIdx.z = 0; blockIdx.z < gridDim.z; blockIdx.z++)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; blockIdx.y++)
      for (blockIdx.x = 0; blockIdx.x < gridDim.x; blockIdx.x++) {
        if (kernel->together) {
          run_together();
          continue;
        }
        for (uint32_t i = 0; i < thread_count; i++) {
          place_thread(i);
          running(arguments);
        }
      }
}

/* --- what is recorded ------------------------------------------------------------------------- */

enum { COPY, FILL, LAUNCH };
enum { MOST_POINTERS = 256 };

typedef struct work {
  struct work *next;
  int kind;
  void *to;
  const void *from;
  size_t bytes;
  unsigned char value;
  const edgec_twin_kernel *kernel;
  dim grid, block;
  void *pointers[MOST_POINTERS];
} work;

typedef struct graph {
  work *first, **last;
} graph;

static graph *recording;

static void perform(const work *item) {
  if (item->kind == COPY) {
    memcpy(item->to, item->from, item->bytes);
  } else if (item->kind == FILL) {
    memset(item->to, item->value, item->bytes);
  } else {
    gridDim = item->grid, blockDim = item->block;
    arguments = item->pointers;
    run_grid(item->kernel);
  }
}

static CUresult submit(const work *item) {
  if (!recording) {
    perform(item);
    return OK;
  }
  work *kept = malloc(sizeof *kept);
  *kept = *item;
  kept->next = NULL;
  *recording->last = kept;
  recording->last = &kept->next;
  return OK;
}

/* --- the driver's functions ------------------------------------------------------------------- */

static uint32_t capability;

static void note(const char *name, unsigned long long bytes) {
  const char *path = getenv("EDGEC_TWIN_LOG");
  FILE *file = path ? fopen(path, "a") : NULL;
  if (!file) return;
  fprintf(file, "%s %llu\n", name, bytes);
  fclose(file);
}

static CUresult failure(const char *name) {
  const char *given = getenv("EDGEC_TWIN_FAIL");
  size_t length = strlen(name);
  return given && !strncmp(given, name, length) && given[length] == ':' ? atoi(given + length + 1)
                                                                        : OK;
}

static int setting(const char *name, int otherwise) {
  const char *given = getenv(name);
  return given ? atoi(given) : otherwise;
}

#define CALL(BYTES)                           \
  do {                                        \
    note(__func__, BYTES);                    \
    CUresult refused = failure(__func__);     \
    if (refused) return refused;              \
  } while (0)

static void *host(CUdeviceptr address) { return (void *)(uintptr_t)(address & ~TAG); }

EXPORT CUresult cuInit(unsigned flags) {
  CALL(flags);
  return OK;
}
EXPORT CUresult cuDriverGetVersion(int *version) {
  *version = setting("EDGEC_TWIN_DRIVER", edgec_twin_toolkit);
  return OK;
}
EXPORT CUresult cuDeviceGetCount(int *count) {
  *count = 1;
  return OK;
}
EXPORT CUresult cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return OK;
}
EXPORT CUresult cuDeviceGetName(char *name, int size, int device) {
  (void)device;
  snprintf(name, (size_t)size, "host twin");
  return OK;
}
EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  capability = (uint32_t)setting("EDGEC_TWIN_ARCH", edgec_twin_capability);
  *value = attribute == 75   ? (int)capability / 10
           : attribute == 76 ? (int)capability % 10
           : attribute == 18 ? setting("EDGEC_TWIN_INTEGRATED", 0)
                             : 0;
  return OK;
}
EXPORT CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
  CALL((unsigned)device);
  *context = &capability;
  return OK;
}
EXPORT CUresult cuDevicePrimaryCtxRelease_v2(int device) {
  CALL((unsigned)device);
  return OK;
}
EXPORT CUresult cuCtxPushCurrent_v2(void *context) { return context ? OK : INVALID_VALUE; }
EXPORT CUresult cuCtxPopCurrent_v2(void **context) {
  *context = NULL;
  return OK;
}
/* Machine code runs on its own capability, and on later ones of the same major version. */
EXPORT CUresult cuModuleLoadData(void **module, const void *image) {
  CALL(0);
  const unsigned char *bytes = image;
  if (!memcmp(bytes, "\177ELF", 4)) {
    uint32_t flags, made_for;
    memcpy(&flags, bytes + 0x30, sizeof flags);
    made_for = bytes[8] >= 8 ? flags >> 8 & 255 : flags & 255;
    if (made_for / 10 != capability / 10 || made_for > capability) return NO_BINARY;
  } else { /* PTX, for its target and later ones */
    const char *target = strstr(image, ".target sm_");
    if (!target || (uint32_t)atoi(target + 11) > capability) return NO_BINARY;
  }
  *module = (void *)image;
  return OK;
}
EXPORT CUresult cuModuleUnload(void *module) {
  (void)module;
  CALL(0);
  return OK;
}
EXPORT CUresult cuModuleGetFunction(const edgec_twin_kernel **function, void *module,
                                    const char *name) {
  (void)module;
  CALL(0);
  for (const edgec_twin_kernel *each = edgec_twin_kernels; each->name; each++)
    if (!strcmp(each->name, name)) {
      *function = each;
      return OK;
    }
  return NOT_FOUND;
}

/* Allocations, so that pointers can be told apart. */
static struct block {
  struct block *next;
  unsigned char *start;
  size_t bytes;
  int is_host;
} *blocks;

static void *allocate(size_t bytes, int is_host) {
  struct block *block = malloc(sizeof *block);
  void *memory = NULL;
  if (!block || posix_memalign(&memory, 256, bytes ? bytes : 1)) return NULL;
  memset(memory, 0xff, bytes); /* NaN: nothing may count on zeros */
  *block = (struct block){blocks, memory, bytes, is_host};
  blocks = block;
  return memory;
}
static CUresult release(void *memory) {
  for (struct block **link = &blocks; *link; link = &(*link)->next)
    if ((*link)->start == memory) {
      struct block *gone = *link;
      *link = gone->next;
      free(gone);
      free(memory);
      return OK;
    }
  return INVALID_VALUE;
}
EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes) {
  CALL(bytes);
  void *memory = allocate(bytes, 0);
  *address = (CUdeviceptr)(uintptr_t)memory | TAG;
  return memory ? OK : OUT_OF_MEMORY;
}
EXPORT CUresult cuMemFree_v2(CUdeviceptr address) {
  CALL(0);
  return release(host(address));
}
EXPORT CUresult cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) {
  (void)flags;
  CALL(bytes);
  *memory = allocate(bytes, 1);
  return *memory ? OK : OUT_OF_MEMORY;
}
EXPORT CUresult cuMemFreeHost(void *memory) {
  CALL(0);
  return release(memory);
}
EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *memory, unsigned flags) {
  (void)flags;
  *address = (CUdeviceptr)(uintptr_t)memory | TAG;
  return OK;
}
EXPORT CUresult cuPointerGetAttribute(void *value, int attribute, CUdeviceptr address) {
  unsigned char *at = host(address);
  if (attribute != 3) return INVALID_VALUE;
  for (const struct block *each = blocks; each; each = each->next)
    if (at >= each->start && at < each->start + each->bytes) {
      CUdeviceptr usable = (CUdeviceptr)(uintptr_t)at | TAG;
      memcpy(value, &usable, sizeof usable);
      return OK;
    }
  return INVALID_VALUE;
}
static CUresult copy(void *to, const void *from, size_t bytes) {
  work item = {.kind = COPY, .to = to, .from = from, .bytes = bytes};
  return submit(&item);
}
EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  CALL(bytes);
  memcpy(host(to), from, bytes);
  return OK;
}
EXPORT CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  CALL(bytes);
  memcpy(to, host(from), bytes);
  return OK;
}
EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, void *stream) {
  (void)stream;
  CALL(bytes);
  return copy(host(to), from, bytes);
}
EXPORT CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, void *stream) {
  (void)stream;
  CALL(bytes);
  return copy(to, host(from), bytes);
}
EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, void *stream) {
  (void)stream;
  CALL(bytes);
  return copy(host(to), host(from), bytes);
}
EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, void *stream) {
  (void)stream;
  CALL(bytes);
  work item = {.kind = FILL, .to = host(to), .value = value, .bytes = bytes};
  return submit(&item);
}
EXPORT CUresult cuStreamCreate(void **stream, unsigned flags) {
  CALL(flags);
  *stream = &capability;
  return OK;
}
EXPORT CUresult cuStreamDestroy_v2(void *stream) {
  (void)stream;
  CALL(0);
  return OK;
}
EXPORT CUresult cuStreamSynchronize(void *stream) {
  (void)stream;
  CALL(0);
  return OK;
}
EXPORT CUresult cuStreamBeginCapture_v2(void *stream, int mode) {
  (void)stream;
  CALL((unsigned)mode);
  recording = calloc(1, sizeof *recording);
  recording->last = &recording->first;
  return OK;
}
EXPORT CUresult cuStreamEndCapture(void *stream, graph **made) {
  (void)stream;
  CALL(0);
  *made = recording;
  recording = NULL;
  return OK;
}
EXPORT CUresult cuGraphInstantiateWithFlags(graph **made, graph *from, unsigned long long flags) {
  CALL(flags);
  *made = malloc(sizeof **made);
  **made = *from;
  return OK;
}
EXPORT CUresult cuGraphLaunch(const graph *made, void *stream) {
  (void)stream;
  CALL(0);
  for (const work *item = made->first; item; item = item->next) perform(item);
  return OK;
}
EXPORT CUresult cuGraphExecDestroy(graph *made) {
  CALL(0);
  for (work *item = made->first, *next; item; item = next) {
    next = item->next;
    free(item);
  }
  free(made);
  return OK;
}
EXPORT CUresult cuGraphDestroy(graph *made) {
  free(made);
  return OK;
}
EXPORT CUresult cuLaunchKernel(const edgec_twin_kernel *kernel, unsigned grid_x, unsigned grid_y,
                               unsigned grid_z, unsigned block_x, unsigned block_y,
                               unsigned block_z, unsigned shared, void *stream, void **parameters,
                               void **extra) {
  (void)shared, (void)stream, (void)extra;
  CALL(grid_x);
  if (block_x * block_y * block_z > MOST_THREADS || grid_y > 65535 || grid_z > 65535)
    return INVALID_VALUE;
  work item = {.kind = LAUNCH, .kernel = kernel};
  item.grid = (dim){grid_x, grid_y, grid_z};
  item.block = (dim){block_x, block_y, block_z};
  for (uint32_t i = 0; i < kernel->pointers; i++) {
    CUdeviceptr address = *(CUdeviceptr *)parameters[i];
    if (!(address & TAG)) return INVALID_VALUE;
    item.pointers[i] = host(address);
  }
  return submit(&item);
}
EXPORT CUresult cuGetErrorName(CUresult code, const char **name) {
  *name = code == OUT_OF_MEMORY   ? "CUDA_ERROR_OUT_OF_MEMORY"
          : code == NO_BINARY     ? "CUDA_ERROR_NO_BINARY_FOR_GPU"
          : code == NOT_FOUND     ? "CUDA_ERROR_NOT_FOUND"
          : code == INVALID_VALUE ? "CUDA_ERROR_INVALID_VALUE"
                                  : "CUDA_ERROR_UNKNOWN";
  return OK;
}
