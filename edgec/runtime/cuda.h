/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * Models on an NVIDIA GPU: what the compiler writes down for it, and what cuda.c and
 * cuda_driver.c share. Nothing of CUDA is needed to compile this: the driver's library is opened
 * at run time, and the few types and numbers of its interface (CUDA Driver API) stand here.
 */
#ifndef EDGEC_CUDA_H
#define EDGEC_CUDA_H

#include "runtime.h"

/* Device code of one kernel, in `images`: machine code, and PTX (zero-terminated) or 0 bytes. */
typedef struct edgec_image {
  uint64_t cubin, cubin_bytes, ptx, ptx_bytes;
} edgec_image;

/* A pointer passed to the GPU: argument `argument` of the kernel, or, where that is negative, the
 * byte `offset` of the scratch memory that all kernels share. */
typedef struct edgec_pointer {
  int32_t argument;
  uint64_t offset;
} edgec_pointer;

typedef struct edgec_launch {
  const char *function;
  uint32_t image;
  uint32_t grid[3], block[3];
  uint32_t pointer, pointer_count; /* its first entry in pointers, and how many */
} edgec_launch;

/* Takes the place of the kernel of the same number: `count` launches from `first` on. */
typedef struct edgec_gpu_kernel {
  uint32_t first, count;
} edgec_gpu_kernel;

typedef struct edgec_cuda {
  const char *arch;      /* "sm_87" */
  int32_t toolkit;       /* of the compiler, as cuDriverGetVersion counts: 12060 is 12.6 */
  int32_t conditional;   /* 1: a step chooses by what the GPU computed */
  uint64_t scratch_bytes;
  const unsigned char *images_data;
  const edgec_image *images;
  const edgec_launch *launches;
  const edgec_pointer *pointers;
  const edgec_gpu_kernel *kernels;
  uint32_t image_count, launch_count;
} edgec_cuda;

enum { EDGEC_MAX_POINTERS = 256, EDGEC_GRAPHS = 4 };

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;

/* Name, name in the library, parameters. */
#define EDGEC_DRIVER(X)                                                                           \
  X(init, "cuInit", (unsigned))                                                                   \
  X(version, "cuDriverGetVersion", (int *))                                                       \
  X(device_count, "cuDeviceGetCount", (int *))                                                    \
  X(device, "cuDeviceGet", (CUdevice *, int))                                                     \
  X(device_name, "cuDeviceGetName", (char *, int, CUdevice))                                      \
  X(device_attribute, "cuDeviceGetAttribute", (int *, int, CUdevice))                             \
  X(retain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))                                  \
  X(let_go, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                                           \
  X(push, "cuCtxPushCurrent_v2", (CUcontext))                                                     \
  X(pop, "cuCtxPopCurrent_v2", (CUcontext *))                                                     \
  X(load, "cuModuleLoadData", (CUmodule *, const void *))                                         \
  X(unload, "cuModuleUnload", (CUmodule))                                                         \
  X(function, "cuModuleGetFunction", (CUfunction *, CUmodule, const char *))                      \
  X(allocate, "cuMemAlloc_v2", (CUdeviceptr *, size_t))                                           \
  X(release, "cuMemFree_v2", (CUdeviceptr))                                                       \
  X(host_allocate, "cuMemHostAlloc", (void **, size_t, unsigned))                                 \
  X(host_release, "cuMemFreeHost", (void *))                                                      \
  X(host_pointer, "cuMemHostGetDevicePointer_v2", (CUdeviceptr *, void *, unsigned))              \
  X(to_device, "cuMemcpyHtoD_v2", (CUdeviceptr, const void *, size_t))                            \
  X(to_device_async, "cuMemcpyHtoDAsync_v2", (CUdeviceptr, const void *, size_t, CUstream))       \
  X(to_host_async, "cuMemcpyDtoHAsync_v2", (void *, CUdeviceptr, size_t, CUstream))               \
  X(copy_async, "cuMemcpyDtoDAsync_v2", (CUdeviceptr, CUdeviceptr, size_t, CUstream))             \
  X(fill_async, "cuMemsetD8Async", (CUdeviceptr, unsigned char, size_t, CUstream))                \
  X(stream_create, "cuStreamCreate", (CUstream *, unsigned))                                      \
  X(stream_destroy, "cuStreamDestroy_v2", (CUstream))                                             \
  X(stream_wait, "cuStreamSynchronize", (CUstream))                                               \
  X(capture, "cuStreamBeginCapture_v2", (CUstream, int))                                          \
  X(captured, "cuStreamEndCapture", (CUstream, CUgraph *))                                        \
  X(instantiate, "cuGraphInstantiateWithFlags", (CUgraphExec *, CUgraph, unsigned long long))     \
  X(graph_launch, "cuGraphLaunch", (CUgraphExec, CUstream))                                       \
  X(graph_exec_destroy, "cuGraphExecDestroy", (CUgraphExec))                                      \
  X(graph_destroy, "cuGraphDestroy", (CUgraph))                                                   \
  X(launch, "cuLaunchKernel", (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned,      \
                               unsigned, unsigned, CUstream, void **, void **))                   \
  X(pointer_attribute, "cuPointerGetAttribute", (void *, int, CUdeviceptr))                       \
  X(error_name, "cuGetErrorName", (CUresult, const char **))

typedef struct edgec_driver {
#define EDGEC_FIELD(NAME, SYMBOL, PARAMETERS) CUresult(*NAME) PARAMETERS;
  EDGEC_DRIVER(EDGEC_FIELD)
#undef EDGEC_FIELD
} edgec_driver;

/* A GPU, its primary context, and the driver. */
typedef struct edgec_gpu {
  const edgec_driver *driver;
  CUdevice device;
  CUcontext context;
  int integrated; /* it shares the processor's memory */
  int driver_version;
  char name[128]; /* with its architecture: "Orin (sm_87)" */
} edgec_gpu;

/* Opens the driver and GPU number `ordinal`; retains its context, which edgec_gpu_close gives back.
 * On failure `why` says what is missing. */
EDGEC_HIDDEN edgec_status edgec_gpu_open(edgec_gpu *, int ordinal, char *why, uint64_t size);
EDGEC_HIDDEN void edgec_gpu_close(edgec_gpu *);

/* The weights on one GPU, shared by all its instances of the model. */
typedef struct edgec_weights {
  struct edgec_weights *next;
  const edgec_model *model;
  CUdevice device;
  CUdeviceptr address;
  uint32_t users;
} edgec_weights;

typedef struct edgec_recorded {
  CUgraphExec graph;
  CUdeviceptr *addresses; /* of inputs, then outputs */
} edgec_recorded;

typedef struct edgec_on_gpu {
  edgec_backend hooks; /* first: the two are cast to each other */
  edgec_gpu gpu;
  const edgec_cuda *code;
  edgec_weights *weights;
  CUdeviceptr memory, scratch, staged; /* all of it, the scratch, inputs and outputs */
  unsigned char *pinned;
  uint64_t input_bytes, staged_bytes; /* of inputs, of both, in the pinned block */
  uint64_t *offsets;                  /* of inputs, outputs and extents in it */
  CUdeviceptr *addresses;             /* of inputs, outputs in this run */
  CUmodule *modules;
  CUfunction *functions; /* one per launch */
  CUstream own, stream;
  edgec_recorded graphs[EDGEC_GRAPHS];
  uint32_t next_graph;
} edgec_on_gpu;

/* "CUDA_ERROR_OUT_OF_MEMORY (2)", in a buffer of the calling thread. */
EDGEC_HIDDEN const char *edgec_cuda_error(const edgec_driver *, CUresult);

/* The hooks of an instance on a GPU, but for `name` and `destroy`. */
EDGEC_HIDDEN void edgec_gpu_hooks(edgec_backend *);
EDGEC_HIDDEN edgec_status edgec_cuda_create(const edgec_model *, const edgec_options *,
                                            edgec_instance **);
#endif
