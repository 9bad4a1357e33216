/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * The products of cuda_tiles.h by tensor cores. These multiply 16 rows by 8 columns over 8 words of
 * 32 bits, and a word is two halves, four bytes or a float of 10 bits of mantissa (TF32): what a
 * thread holds of them differs in nothing else (PTX ISA, "Matrix Fragments for mma").
 */
#ifdef EDGEC_TWIN
/* A thread's sums, by `add(sum, left word, right word)`. */
template <class Sum, class Add>
static inline void edgec_mma_words(Sum *c, const uint32_t *a, const uint32_t *b, Add add) {
  uint32_t own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const uint32_t *all = edgec_twin_exchange(own, 6);
  int lane = (int)edgec_twin_lane();
  for (int i = 0; i < 4; i++) {
    int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + i % 2;
    for (int word = 0; word < 8; word++)
      c[i] = add(c[i], all[16 * (row % 8 * 4 + word % 4) + (row >= 8) + 2 * (word >= 4)],
                 all[16 * (column * 4 + word % 4) + 4 + (word >= 4)]);
  }
}
static inline void edgec_mma_half(float *c, const uint32_t *a, const uint32_t *b) {
  edgec_mma_words(c, a, b, [](float sum, uint32_t x, uint32_t y) {
    for (int shift = 0; shift < 32; shift += 16)
      sum += edgec_from_half((uint16_t)(x >> shift)) * edgec_from_half((uint16_t)(y >> shift));
    return sum;
  });
}
static inline void edgec_mma_bytes(int32_t *c, const uint32_t *a, const uint32_t *b) {
  edgec_mma_words(c, a, b, [](int32_t sum, uint32_t x, uint32_t y) {
    return edgec_add_product((int)x, (int)y, sum);
  });
}
static inline void edgec_mma_tf32(float *c, const uint32_t *a, const uint32_t *b) {
  edgec_mma_words(c, a, b, [](float sum, uint32_t x, uint32_t y) {
    return sum + __int_as_float((int)x) * __int_as_float((int)y);
  });
}
/* To the nearest of 10 bits of mantissa, ties away from zero, as cvt.rna.tf32 does. */
static inline uint32_t edgec_to_tf32(uint32_t bits) {
  bool number = (bits & 0x7f800000) != 0x7f800000;
  return number ? (bits + 0x1000) & ~0x1fffu : bits;
}
template <bool TRANSPOSED>
static inline void edgec_mma_load(uint32_t *out, const void *address) {
  uint32_t own[2];
  memcpy(own, &address, sizeof address);
  const uint32_t *all = edgec_twin_exchange(own, 2);
  int lane = (int)edgec_twin_lane();
  for (int i = 0; i < 4; i++) {
    uint16_t pair[2];
    for (int e = 0; e < 2; e++) {
      int row = TRANSPOSED ? lane % 4 * 2 + e : lane / 4;
      int column = TRANSPOSED ? lane / 4 : lane % 4 * 2 + e;
      const uint16_t *line;
      memcpy(&line, all + 16 * (8 * i + row), sizeof line);
      pair[e] = line[column];
    }
    memcpy(&out[i], pair, sizeof pair);
  }
}
#else
#define EDGEC_MMA(SHAPE, SUM) \
  asm volatile("mma.sync.aligned." SHAPE " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
               : "+" SUM(c[0]), "+" SUM(c[1]), "+" SUM(c[2]), "+" SUM(c[3]) \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#if __CUDA_ARCH__ >= 800
EDGEC_INLINE void edgec_mma_half(float *c, const uint32_t *a, const uint32_t *b) {
  EDGEC_MMA("m16n8k16.row.col.f32.f16.f16.f32", "f");
}
EDGEC_INLINE void edgec_mma_bytes(int32_t *c, const uint32_t *a, const uint32_t *b) {
  EDGEC_MMA("m16n8k32.row.col.s32.u8.s8.s32", "r");
}
EDGEC_INLINE void edgec_mma_tf32(float *c, const uint32_t *a, const uint32_t *b) {
  EDGEC_MMA("m16n8k8.row.col.f32.tf32.tf32.f32", "f");
}
EDGEC_INLINE uint32_t edgec_to_tf32(uint32_t bits) {
  uint32_t narrow;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(narrow) : "f"(__int_as_float((int)bits)));
  return narrow;
}
#else
/* Turing's take less at once. */
EDGEC_INLINE void edgec_mma_half(float *c, const uint32_t *a, const uint32_t *b) {
#pragma unroll
  for (int part = 0; part < 2; part++)
    asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[2 * part]), "r"(a[2 * part + 1]), "r"(b[part]));
}
EDGEC_INLINE void edgec_mma_bytes(int32_t *c, const uint32_t *a, const uint32_t *b) {
#pragma unroll
  for (int part = 0; part < 4; part++)
    asm volatile(
      "mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32 {%0,%1}, {%2}, {%3}, {%0,%1};"
      : "+r"(c[part % 2 * 2]), "+r"(c[part % 2 * 2 + 1])
      : "r"(a[part]), "r"(b[part / 2]));
}
#endif
#undef EDGEC_MMA
template <bool TRANSPOSED>
EDGEC_INLINE void edgec_mma_load(uint32_t *out, const void *address) {
  uint32_t at = (uint32_t)__cvta_generic_to_shared(address);
  if (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}
#endif

/* How elements that lie in memory as T are multiplied: the type of their bits, what becomes of them
 * first, and by what. */
template <class T>
struct edgec_core;
template <>
struct edgec_core<half> {
  using bits = uint16_t;
  EDGEC_MEMBER static bits narrowed(bits value) { return value; }
  EDGEC_MEMBER static void multiply(float *c, const uint32_t *a, const uint32_t *b) {
    edgec_mma_half(c, a, b);
  }
};
template <>
struct edgec_core<int32_t> {
  using bits = uint32_t;
  EDGEC_MEMBER static bits narrowed(bits value) { return value; }
  EDGEC_MEMBER static void multiply(int32_t *c, const uint32_t *a, const uint32_t *b) {
    edgec_mma_bytes(c, a, b);
  }
};
#if defined(EDGEC_TWIN) || __CUDA_ARCH__ >= 800
template <>
struct edgec_core<float> {
  using bits = uint32_t;
  EDGEC_MEMBER static bits narrowed(bits value) { return edgec_to_tf32(value); }
  EDGEC_MEMBER static void multiply(float *c, const uint32_t *a, const uint32_t *b) {
    edgec_mma_tf32(c, a, b);
  }
};
#endif

/* A factor's tile in shared memory, OUTER by BK elements, in lines along k or, TURNED, across. */
template <class Bits, int OUTER, int BK, bool ALONG_K>
struct edgec_panel {
  static constexpr bool TURNED = !ALONG_K;
  static constexpr int PART = 16 / (int)sizeof(Bits);
  /* Lines are so much longer than a multiple of 128 bytes that threads do not meet in a bank. */
  static constexpr int LINE = ALONG_K ? BK + PART : OUTER + 8;
  Bits values[(ALONG_K ? OUTER : BK) * LINE];
  EDGEC_MEMBER Bits *at(int outer, int k) {
    return &values[ALONG_K ? outer * LINE + k : k * LINE + outer];
  }
  /* What a thread holds of 16 outer by 32 bytes of terms, in the order of PTX: four parts of 8 by
   * 16 bytes, the outer ones first where OUTER_FIRST. */
  template <bool OUTER_FIRST>
  EDGEC_MEMBER void load(uint32_t *out, int outer, int k) {
    const int lane = (int)threadIdx.x % 32;
    if constexpr (TURNED && sizeof(Bits) == 4) {
#pragma unroll
      for (int i = 0; i < 4; i++)
        out[i] = *at(outer + 8 * (OUTER_FIRST ? i % 2 : i / 2) + lane / 4,
                     k + PART * (OUTER_FIRST ? i / 2 : i % 2) + lane % 4);
    } else {
      const int i = lane / 8, line = lane % 8;
      const int part = outer + 8 * (OUTER_FIRST ? i % 2 : i / 2);
      const int term = k + PART * (OUTER_FIRST ? i / 2 : i % 2);
      edgec_mma_load<TURNED>(out, TURNED ? at(part, term + line) : at(part + line, term));
    }
  }
};

/* On tensor cores: four warps, two by two. Sums of halves are in single precision. */
template <class P>
static __device__ void edgec_multiply_cores(const P &problem) {
  using core = edgec_core<typename P::left_type>;
  using bits = typename core::bits;
  constexpr int BM = P::BM, BN = P::BN, THREADS = 128, WM = BM / 2, WN = BN / 2;
  constexpr int BK = 64 / (int)sizeof(bits), STEP = BK / 2;
  using left_walk = edgec_walk<BM, BK, P::LEFT_WIDTH, P::LEFT_ALONG_K, THREADS>;
  using right_walk = edgec_walk<BN, BK, P::RIGHT_WIDTH, P::RIGHT_ALONG_K, THREADS>;
  using left_chunk = edgec_chunk<bits, P::LEFT_WIDTH>;
  using right_chunk = edgec_chunk<bits, P::RIGHT_WIDTH>;
  __shared__ alignas(16) edgec_panel<bits, BM, BK, P::LEFT_ALONG_K> left;
  __shared__ alignas(16) edgec_panel<bits, BN, BK, P::RIGHT_ALONG_K> right;
  const int p0 = (int)blockIdx.x * BM, q0 = (int)blockIdx.y * BN, z = (int)blockIdx.z;
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int m0 = warp / 2 * WM, n0 = warp % 2 * WN;
  left_chunk lefts[left_walk::EACH];
  right_chunk rights[right_walk::EACH];
  typename P::sum_type sums[WM / 16][WN / 8][4];
#pragma unroll
  for (int m = 0; m < WM / 16; m++)
#pragma unroll
    for (int n = 0; n < WN / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) sums[m][n][i] = 0;

  auto fetch = [&](int k0) {
    left_walk::fetch(lefts, p0, k0, P::ROWS, P::TERMS,
                     [&](int p, int k) { return problem.left(z, p, k); });
    right_walk::fetch(rights, q0, k0, P::COLUMNS, P::TERMS,
                      [&](int q, int k) { return problem.right(z, q, k); });
  };
  auto keep = [&]() {
#pragma unroll
    for (int i = 0; i < left_walk::EACH; i++) {
      const left_walk at(i);
#pragma unroll
      for (int e = 0; e < P::LEFT_WIDTH; e++)
        lefts[i].values[e] = core::narrowed(lefts[i].values[e]);
      if (at.inside()) *(left_chunk *)left.at(at.outer, at.k) = lefts[i];
    }
#pragma unroll
    for (int i = 0; i < right_walk::EACH; i++) {
      const right_walk at(i);
#pragma unroll
      for (int e = 0; e < P::RIGHT_WIDTH; e++)
        rights[i].values[e] = core::narrowed(rights[i].values[e]);
      if (at.inside()) *(right_chunk *)right.at(at.outer, at.k) = rights[i];
    }
  };

  fetch(0);
  for (int k0 = 0; k0 < P::TERMS; k0 += BK) {
    keep();
    __syncthreads();
    if (k0 + BK < P::TERMS) fetch(k0 + BK);
#pragma unroll
    for (int k = 0; k < BK; k += STEP) {
      uint32_t a[WM / 16][4], b[WN / 16][4];
#pragma unroll
      for (int m = 0; m < WM / 16; m++) left.template load<true>(a[m], m0 + 16 * m, k);
#pragma unroll
      for (int n = 0; n < WN / 16; n++) right.template load<false>(b[n], n0 + 16 * n, k);
#pragma unroll
      for (int m = 0; m < WM / 16; m++)
#pragma unroll
        for (int n = 0; n < WN / 8; n++) core::multiply(sums[m][n], a[m], &b[n / 2][n % 2 * 2]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int m = 0; m < WM / 16; m++)
#pragma unroll
    for (int n = 0; n < WN / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int p = p0 + m0 + 16 * m + lane / 4 + i / 2 * 8;
        const int q = q0 + n0 + 8 * n + lane % 4 * 2 + i % 2;
        if (p < P::ROWS && q < P::COLUMNS) problem.finish(z, p, q, sums[m][n][i]);
      }
}
