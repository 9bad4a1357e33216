/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/*
 * Products of matrices, tile by tile: out[p, q] = finish(sum over k of left[p, k] * right[k, q]).
 *
 * A problem is a generated class. It says where elements are: `left(z, p, k)` and `right(z, q, k)`
 * are addresses, null where an element is zero; LEFT_WIDTH of them in a row, along k where
 * LEFT_ALONG_K, else along p, can be read as one. ROWS, COLUMNS and TERMS are the extents, and
 * `finish(z, p, q, sum)` does with a sum whatever comes after. A convolution is such a problem whose
 * addresses are those of its windows.
 */
EDGEC_INLINE int edgec_floor_divide(int a, int b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}
EDGEC_INLINE int edgec_floor_remainder(int a, int b) { return a - edgec_floor_divide(a, b) * b; }

template <class T, int N>
struct alignas(sizeof(T) * N) edgec_chunk {
  T values[N];
};

EDGEC_INLINE int edgec_wide(int value) { return value; }
EDGEC_INLINE float edgec_wide(float value) { return value; }
EDGEC_INLINE float edgec_wide(half value) { return (float)value; }
EDGEC_INLINE float edgec_wide(int8_t value) { return (float)value; }
EDGEC_INLINE float edgec_wide(uint8_t value) { return (float)value; }

/* Which chunk of a tile of OUTER by TERMS elements is the i-th of this thread. */
template <int OUTER, int TERMS, int WIDTH, bool ALONG_K, int THREADS>
struct edgec_walk {
  static constexpr int CHUNKS = OUTER * TERMS / WIDTH;
  static constexpr int EACH = (CHUNKS + THREADS - 1) / THREADS;
  static constexpr int LINE = (ALONG_K ? TERMS : OUTER) / WIDTH;
  int number, outer, k;
  __device__ explicit edgec_walk(int i) {
    number = (int)threadIdx.x + i * THREADS;
    int line = number / LINE, place = number % LINE * WIDTH;
    outer = ALONG_K ? line : place;
    k = ALONG_K ? place : line;
  }
  __device__ bool inside() const { return CHUNKS % THREADS == 0 || number < CHUNKS; }
};

/* In single precision, or by products of four bytes: 256 threads, each BM / 16 by BN / 16 sums in
 * registers. */
template <class P>
static __device__ void edgec_multiply(const P &problem) {
  constexpr int BM = P::BM, BN = P::BN, BK = 16, TM = BM / 16, TN = BN / 16, THREADS = 256;
  using left_walk = edgec_walk<BM, BK, P::LEFT_WIDTH, P::LEFT_ALONG_K, THREADS>;
  using right_walk = edgec_walk<BN, BK, P::RIGHT_WIDTH, P::RIGHT_ALONG_K, THREADS>;
  using left_chunk = edgec_chunk<typename P::left_type, P::LEFT_WIDTH>;
  using right_chunk = edgec_chunk<typename P::right_type, P::RIGHT_WIDTH>;
  using sum_type = typename P::sum_type;
  __shared__ alignas(16) sum_type left[BK][BM + 4];
  __shared__ alignas(16) sum_type right[BK][BN + 4];
  const int p0 = (int)blockIdx.x * BM, q0 = (int)blockIdx.y * BN, z = (int)blockIdx.z;
  const int m0 = (int)threadIdx.x / 16 * TM, n0 = (int)threadIdx.x % 16 * TN;
  left_chunk lefts[left_walk::EACH];
  right_chunk rights[right_walk::EACH];
  sum_type sums[TM][TN];
#pragma unroll
  for (int m = 0; m < TM; m++)
#pragma unroll
    for (int n = 0; n < TN; n++) sums[m][n] = 0;

  auto fetch = [&](int k0) {
#pragma unroll
    for (int i = 0; i < left_walk::EACH; i++) {
      const left_walk at(i);
      const int p = p0 + at.outer, k = k0 + at.k;
      const auto *address =
        at.inside() && p < P::ROWS && k < P::TERMS ? problem.left(z, p, k) : nullptr;
      lefts[i] = address ? *(const left_chunk *)address : left_chunk{};
    }
#pragma unroll
    for (int i = 0; i < right_walk::EACH; i++) {
      const right_walk at(i);
      const int q = q0 + at.outer, k = k0 + at.k;
      const auto *address =
        at.inside() && q < P::COLUMNS && k < P::TERMS ? problem.right(z, q, k) : nullptr;
      rights[i] = address ? *(const right_chunk *)address : right_chunk{};
    }
  };
  auto keep = [&]() {
#pragma unroll
    for (int i = 0; i < left_walk::EACH; i++) {
      const left_walk at(i);
      if (!at.inside()) continue;
#pragma unroll
      for (int e = 0; e < P::LEFT_WIDTH; e++)
        left[at.k + (P::LEFT_ALONG_K ? e : 0)][at.outer + (P::LEFT_ALONG_K ? 0 : e)] =
          edgec_wide(lefts[i].values[e]);
    }
#pragma unroll
    for (int i = 0; i < right_walk::EACH; i++) {
      const right_walk at(i);
      if (!at.inside()) continue;
#pragma unroll
      for (int e = 0; e < P::RIGHT_WIDTH; e++)
        right[at.k + (P::RIGHT_ALONG_K ? e : 0)][at.outer + (P::RIGHT_ALONG_K ? 0 : e)] =
          edgec_wide(rights[i].values[e]);
    }
  };

  fetch(0);
  for (int k0 = 0; k0 < P::TERMS; k0 += BK) {
    keep();
    __syncthreads();
    if (k0 + BK < P::TERMS) fetch(k0 + BK);
#pragma unroll
    for (int k = 0; k < BK; k++) {
      const auto a = *(const edgec_chunk<sum_type, TM> *)&left[k][m0];
      const auto b = *(const edgec_chunk<sum_type, TN> *)&right[k][n0];
#pragma unroll
      for (int m = 0; m < TM; m++)
#pragma unroll
        for (int n = 0; n < TN; n++)
          sums[m][n] = edgec_add_product(a.values[m], b.values[n], sums[m][n]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int m = 0; m < TM; m++)
#pragma unroll
    for (int n = 0; n < TN; n++)
      if (p0 + m0 + m < P::ROWS && q0 + n0 + n < P::COLUMNS)
        problem.finish(z, p0 + m0 + m, q0 + n0 + n, sums[m][n]);
}

#ifdef EDGEC_TWIN
static inline void edgec_mma(float *c, const uint32_t *a, const uint32_t *b) {
  uint32_t own[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const uint32_t *all = edgec_twin_exchange(own, 6);
  int lane = (int)edgec_twin_lane();
  for (int i = 0; i < 4; i++) {
    int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 16; k++) {
      uint32_t x = all[16 * (row % 8 * 4 + k % 8 / 2) + (row >= 8) + 2 * (k >= 8)];
      uint32_t y = all[16 * (column * 4 + k % 8 / 2) + 4 + (k >= 8)];
      c[i] += edgec_from_half((uint16_t)(x >> 16 * (k % 2))) *
              edgec_from_half((uint16_t)(y >> 16 * (k % 2)));
    }
  }
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
EDGEC_INLINE void edgec_mma(float *c, const uint32_t *a, const uint32_t *b) {
  asm volatile(
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
    "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
    : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
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

/* In half precision on tensor cores, sums in single: four warps, two by two. */
template <class P>
static __device__ void edgec_multiply_half(const P &problem) {
  constexpr int BM = P::BM, BN = P::BN, BK = 32, THREADS = 128, WM = BM / 2, WN = BN / 2;
  using left_walk = edgec_walk<BM, BK, P::LEFT_WIDTH, P::LEFT_ALONG_K, THREADS>;
  using right_walk = edgec_walk<BN, BK, P::RIGHT_WIDTH, P::RIGHT_ALONG_K, THREADS>;
  using left_chunk = edgec_chunk<uint16_t, P::LEFT_WIDTH>;
  using right_chunk = edgec_chunk<uint16_t, P::RIGHT_WIDTH>;
  constexpr int LEFT_LINE = (P::LEFT_ALONG_K ? BK : BM) + 8;
  constexpr int RIGHT_LINE = (P::RIGHT_ALONG_K ? BK : BN) + 8;
  __shared__ alignas(16) uint16_t left[(P::LEFT_ALONG_K ? BM : BK) * LEFT_LINE];
  __shared__ alignas(16) uint16_t right[(P::RIGHT_ALONG_K ? BN : BK) * RIGHT_LINE];
  const int p0 = (int)blockIdx.x * BM, q0 = (int)blockIdx.y * BN, z = (int)blockIdx.z;
  const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
  const int m0 = warp / 2 * WM, n0 = warp % 2 * WN;
  left_chunk lefts[left_walk::EACH];
  right_chunk rights[right_walk::EACH];
  float sums[WM / 16][WN / 8][4];
#pragma unroll
  for (int m = 0; m < WM / 16; m++)
#pragma unroll
    for (int n = 0; n < WN / 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;

  auto fetch = [&](int k0) {
#pragma unroll
    for (int i = 0; i < left_walk::EACH; i++) {
      const left_walk at(i);
      const int p = p0 + at.outer, k = k0 + at.k;
      const auto *address =
        at.inside() && p < P::ROWS && k < P::TERMS ? problem.left(z, p, k) : nullptr;
      lefts[i] = address ? *(const left_chunk *)address : left_chunk{};
    }
#pragma unroll
    for (int i = 0; i < right_walk::EACH; i++) {
      const right_walk at(i);
      const int q = q0 + at.outer, k = k0 + at.k;
      const auto *address =
        at.inside() && q < P::COLUMNS && k < P::TERMS ? problem.right(z, q, k) : nullptr;
      rights[i] = address ? *(const right_chunk *)address : right_chunk{};
    }
  };
  auto keep = [&]() {
#pragma unroll
    for (int i = 0; i < left_walk::EACH; i++) {
      const left_walk at(i);
      const int place = P::LEFT_ALONG_K ? at.outer * LEFT_LINE + at.k : at.k * LEFT_LINE + at.outer;
      if (at.inside()) *(left_chunk *)&left[place] = lefts[i];
    }
#pragma unroll
    for (int i = 0; i < right_walk::EACH; i++) {
      const right_walk at(i);
      const int place =
        P::RIGHT_ALONG_K ? at.outer * RIGHT_LINE + at.k : at.k * RIGHT_LINE + at.outer;
      if (at.inside()) *(right_chunk *)&right[place] = rights[i];
    }
  };

  const int matrix = lane / 8, line = lane % 8;
  fetch(0);
  for (int k0 = 0; k0 < P::TERMS; k0 += BK) {
    keep();
    __syncthreads();
    if (k0 + BK < P::TERMS) fetch(k0 + BK);
#pragma unroll
    for (int k = 0; k < BK; k += 16) {
      uint32_t a[WM / 16][4], b[WN / 16][4];
#pragma unroll
      for (int m = 0; m < WM / 16; m++) {
        const int row = m0 + 16 * m + matrix % 2 * 8, term = k + matrix / 2 * 8;
        edgec_mma_load<!P::LEFT_ALONG_K>(
          a[m], &left[P::LEFT_ALONG_K ? (row + line) * LEFT_LINE + term
                                      : (term + line) * LEFT_LINE + row]);
      }
#pragma unroll
      for (int n = 0; n < WN / 16; n++) {
        const int column = n0 + 16 * n + matrix / 2 * 8, term = k + matrix % 2 * 8;
        edgec_mma_load<!P::RIGHT_ALONG_K>(
          b[n], &right[P::RIGHT_ALONG_K ? (column + line) * RIGHT_LINE + term
                                        : (term + line) * RIGHT_LINE + column]);
      }
#pragma unroll
      for (int m = 0; m < WM / 16; m++)
#pragma unroll
        for (int n = 0; n < WN / 8; n++) edgec_mma(sums[m][n], a[m], &b[n / 2][n % 2 * 2]);
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
