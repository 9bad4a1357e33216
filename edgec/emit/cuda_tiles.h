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

  /* This thread's chunks of the tile that begins at (outer0, k0) of `outers` by `all_terms` elements:
   * zero beyond them, and where `address` is null. */
  template <class Chunk, class Address>
  static __device__ void fetch(Chunk (&chunks)[EACH], int outer0, int k0, int outers,
                               int all_terms, Address address) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const edgec_walk at(i);
      const int place = outer0 + at.outer, term = k0 + at.k;
      const auto *source =
        at.inside() && place < outers && term < all_terms ? address(place, term) : nullptr;
      chunks[i] = source ? *(const Chunk *)source : Chunk{};
    }
  }
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
    left_walk::fetch(lefts, p0, k0, P::ROWS, P::TERMS,
                     [&](int p, int k) { return problem.left(z, p, k); });
    right_walk::fetch(rights, q0, k0, P::COLUMNS, P::TERMS,
                      [&](int q, int k) { return problem.right(z, q, k); });
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
