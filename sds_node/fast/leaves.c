/* Hashes of a share's leaves: SHA-256(0x00 ‖ 16 KiB), two leaves at a time; the tree over them, and the digests of receipts.
 *
 *     leaf a ─┐
 *             ├─► rounds of both in turn: one waits for its last instruction while the other's begins
 *     leaf b ─┘
 *
 * With the processor's SHA instructions alone (x86-64); without them ``leaves_ready`` is 0 and Python's hashlib does it. FIPS 180-4.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define LEAF 16384
#define BLOCK 64
#define HASH 32
/* 0x00 and 63 bytes are the first block, 255 blocks follow, the last byte and the padding are the last one. */
#define MIDDLE 255

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

static const uint32_t K[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* The state as the instructions want it: (ABEF, CDGH). */
typedef struct {
    __m128i abef, cdgh;
} state;

#define SHA __attribute__((target("sha,sse4.1,ssse3")))
#define START {_mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c), \
               _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19)}

SHA static void two(state *left, state *right, const uint8_t *p, const uint8_t *q, size_t count) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i a = left->abef, c = left->cdgh, e = right->abef, g = right->cdgh;
    for (; count; count--, p += BLOCK, q += BLOCK) {
        const __m128i a0 = a, c0 = c, e0 = e, g0 = g;
        __m128i m[4], n[4];
        for (int i = 0; i < 4; i++) {
            m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 16 * i)), swap);
            n[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(q + 16 * i)), swap);
        }
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            const __m128i k = _mm_load_si128((const __m128i *)(K + 4 * i));
            __m128i x = _mm_add_epi32(m[i & 3], k), y = _mm_add_epi32(n[i & 3], k);
            c = _mm_sha256rnds2_epu32(c, a, x);
            g = _mm_sha256rnds2_epu32(g, e, y);
            a = _mm_sha256rnds2_epu32(a, c, _mm_shuffle_epi32(x, 0x0E));
            e = _mm_sha256rnds2_epu32(e, g, _mm_shuffle_epi32(y, 0x0E));
            if (i < 12) {
                __m128i u = _mm_sha256msg1_epu32(m[i & 3], m[(i + 1) & 3]), v = _mm_sha256msg1_epu32(n[i & 3], n[(i + 1) & 3]);
                u = _mm_add_epi32(u, _mm_alignr_epi8(m[(i + 3) & 3], m[(i + 2) & 3], 4));
                v = _mm_add_epi32(v, _mm_alignr_epi8(n[(i + 3) & 3], n[(i + 2) & 3], 4));
                m[i & 3] = _mm_sha256msg2_epu32(u, m[(i + 3) & 3]);
                n[i & 3] = _mm_sha256msg2_epu32(v, n[(i + 3) & 3]);
            }
        }
        a = _mm_add_epi32(a, a0), c = _mm_add_epi32(c, c0), e = _mm_add_epi32(e, e0), g = _mm_add_epi32(g, g0);
    }
    left->abef = a, left->cdgh = c, right->abef = e, right->cdgh = g;
}

SHA static void give(const state *s, uint8_t *out) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    const __m128i low = _mm_shuffle_epi32(s->abef, 0x1B), high = _mm_shuffle_epi32(s->cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)out, _mm_shuffle_epi8(_mm_blend_epi16(low, high, 0xF0), swap));
    _mm_storeu_si128((__m128i *)(out + 16), _mm_shuffle_epi8(_mm_alignr_epi8(high, low, 8), swap));
}

SHA static void pair(const uint8_t *p, const uint8_t *q, uint8_t *left_out, uint8_t *right_out) {
    state left = START;
    state right = START;
    uint8_t first[2][BLOCK], last[2][BLOCK] = {{0}, {0}};
    const uint8_t *of[2] = {p, q};
    const uint64_t bits = (uint64_t)(LEAF + 1) * 8;
    for (int i = 0; i < 2; i++) {
        first[i][0] = 0, memcpy(first[i] + 1, of[i], BLOCK - 1);
        last[i][0] = of[i][LEAF - 1], last[i][1] = 0x80;
        for (int j = 0; j < 8; j++) last[i][BLOCK - 1 - j] = (uint8_t)(bits >> 8 * j);
    }
    two(&left, &right, first[0], first[1], 1);
    two(&left, &right, p + BLOCK - 1, q + BLOCK - 1, MIDDLE);
    two(&left, &right, last[0], last[1], 1);
    give(&left, left_out);
    give(&right, right_out);
}

/* Two messages of ``size`` bytes, 56 to 119, at the beginning of buffers of two blocks → their hashes. */
SHA static void short_pair(uint8_t *p, uint8_t *q, size_t size, uint8_t *left_out, uint8_t *right_out) {
    state left = START;
    state right = START;
    uint8_t *of[2] = {p, q};
    const uint64_t bits = (uint64_t)size * 8;
    for (int i = 0; i < 2; i++) {
        memset(of[i] + size, 0, 2 * BLOCK - size);
        of[i][size] = 0x80;
        for (int j = 0; j < 8; j++) of[i][2 * BLOCK - 1 - j] = (uint8_t)(bits >> 8 * j);
    }
    two(&left, &right, p, q, 2);
    give(&left, left_out);
    give(&right, right_out);
}

EXPORT int leaves_ready(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3)) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}

/* ``count`` whole leaves, one after another → ``out``, 32 bytes for each. */
EXPORT void leaves_hash(const uint8_t *data, size_t count, uint8_t *out) {
    uint8_t unused[32];
    for (; count > 1; count -= 2, data += 2 * LEAF, out += 64) pair(data, data + LEAF, out, out + 32);
    if (count) pair(data, data, out, unused);
}
static void children(uint8_t *node, const uint8_t *both) { node[0] = 1, memcpy(node + 1, both, 2 * HASH); }

/* The root over ``count`` hashes, at least 1: of each level two nodes at a time. The hashes are written over. */
EXPORT void leaves_root(uint8_t *level, size_t count, uint8_t *out) {
    uint8_t p[2 * BLOCK], q[2 * BLOCK], unused[HASH];
    while (count > 1) {
        size_t pairs = count / 2;
        for (size_t i = 0; i < pairs; i += 2) {
            const int is_alone = i + 1 == pairs;
            children(p, level + 2 * i * HASH);
            children(q, level + 2 * (is_alone ? i : i + 1) * HASH);
            short_pair(p, q, 1 + 2 * HASH, level + i * HASH, is_alone ? unused : level + (i + 1) * HASH);
        }
        if (count & 1) memmove(level + pairs * HASH, level + (count - 1) * HASH, HASH); /* alone on its level: it goes up as it is */
        count = pairs + (count & 1);
    }
    memcpy(out, level, HASH);
}

/* The digests of a receipt after each of ``count`` more leaves, whose numbers begin with ``first`` → ``out``, 32 bytes for each. */
EXPORT void leaves_digests(const uint8_t *digest, uint64_t first, const uint8_t *hashes, size_t count, uint8_t *out) {
    uint8_t p[2 * BLOCK], q[2 * BLOCK] = {0}, unused[HASH];
    for (; count; count--, first++, hashes += HASH, digest = out, out += HASH) {
        memcpy(p, digest, HASH);
        for (int j = 0; j < 8; j++) p[HASH + 7 - j] = (uint8_t)(first >> 8 * j);
        memcpy(p + HASH + 8, hashes, HASH);
        short_pair(p, q, 2 * HASH + 8, out, unused);
    }
}
#else
EXPORT int leaves_ready(void) { return 0; }
EXPORT void leaves_root(uint8_t *level, size_t count, uint8_t *out) { (void)level, (void)count, (void)out; }
EXPORT void leaves_digests(const uint8_t *digest, uint64_t first, const uint8_t *hashes, size_t count, uint8_t *out) {
    (void)digest, (void)first, (void)hashes, (void)count, (void)out;
}
EXPORT void leaves_hash(const uint8_t *data, size_t count, uint8_t *out) { (void)data, (void)count, (void)out; }
#endif
