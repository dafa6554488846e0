/* The tree of chain/store/iavl.py in C: same rules, same bytes. The Python form is the oracle; tests hold the two equal.

   One tree belongs to one thread at a time. It has a committed root and at most one staged root; staged nodes are new objects, the
   committed ones stay as they are until core_commit frees those that the staged version no longer uses.

   A child that is not in memory is a stub (version, nonce, hash). It is fetched through the load callback, which calls core_supply.
   While a version is staged, an old node and its copy may share a stub: it then forwards to what was loaded and is freed at the end. */

#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define EXPORT __attribute__((visibility("default")))
#define MAX_HEIGHT 100
#define DELETED 0xFFFFFFFFu
#define STORED_FORM 2 /* of nodes; a library that was built from other rules is not used */

enum { OK = 0, MISSING = 1, DAMAGED = 2, NO_MEMORY = 3, BAD_INPUT = 4 };

/* ---- SHA-256 (FIPS 180-4) ---------------------------------------------------------------------------------------------- */

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static uint32_t turn(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void blocks_plain(uint32_t s[8], const uint8_t *p, size_t count) {
    uint32_t w[64];
    for (; count; count--, p += 64) {
        for (int i = 0; i < 16; i++)
            w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
        for (int i = 16; i < 64; i++) {
            uint32_t a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + w[i - 7] + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
        }
        uint32_t a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        for (int i = 0; i < 64; i++) {
            uint32_t t1 = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i];
            uint32_t t2 = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
    }
}

#if defined(__x86_64__)
/* The processor's SHA instructions work on the state as (ABEF, CDGH) and take two rounds per instruction, four per schedule step. */
__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_native(uint32_t s[8], const uint8_t *p, size_t count) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)s), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(s + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; count; count--, p += 64) {
        const __m128i abef0 = abef, cdgh0 = cdgh;
        __m128i m[4];
        for (int i = 0; i < 4; i++) m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(p + 16 * i)), swap);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i x = _mm_add_epi32(m[i & 3], _mm_loadu_si128((const __m128i *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, x);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(x, 0x0E));
            if (i < 12) {
                __m128i next = _mm_sha256msg1_epu32(m[i & 3], m[(i + 1) & 3]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(m[(i + 3) & 3], m[(i + 2) & 3], 4));
                m[i & 3] = _mm_sha256msg2_epu32(next, m[(i + 3) & 3]);
            }
        }
        abef = _mm_add_epi32(abef, abef0), cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    low = _mm_shuffle_epi32(abef, 0x1B), high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)s, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(s + 4), _mm_alignr_epi8(high, low, 8));
}

static int has_native(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_1) || !(c & bit_SSSE3)) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}
#endif

static void (*hash_blocks)(uint32_t s[8], const uint8_t *p, size_t count) = blocks_plain;

typedef void (*hasher)(uint32_t s[8], const uint8_t *p, size_t count);

static void sha256_with(hasher blocks, const uint8_t *data, size_t size, uint8_t out[32]) {
    uint32_t s[8];
    uint8_t tail[128] = {0};
    memcpy(s, START, sizeof s);
    size_t whole = size / 64, rest = size % 64, padded = rest < 56 ? 64 : 128;
    if (whole) blocks(s, data, whole);
    if (rest) memcpy(tail, data + 64 * whole, rest);
    tail[rest] = 0x80;
    uint64_t bits = (uint64_t)size * 8;
    for (int i = 0; i < 8; i++) tail[padded - 1 - i] = (uint8_t)(bits >> 8 * i);
    blocks(s, tail, padded / 64);
    for (int i = 0; i < 8; i++) {
        out[4 * i] = (uint8_t)(s[i] >> 24), out[4 * i + 1] = (uint8_t)(s[i] >> 16), out[4 * i + 2] = (uint8_t)(s[i] >> 8);
        out[4 * i + 3] = (uint8_t)s[i];
    }
}

static void sha256(const uint8_t *data, size_t size, uint8_t out[32]) { sha256_with(hash_blocks, data, size, out); }

EXPORT void core_sha256(const uint8_t *data, size_t size, uint8_t *out, int plain) {
    sha256_with(plain ? blocks_plain : hash_blocks, data, size, out);
}

/* CRC-32 (ISO-HDLC, as zlib's), half a byte at a time; goes on from the CRC of what came before (0: nothing). */
static uint32_t crc32(uint32_t crc, const uint8_t *data, size_t size) {
    static const uint32_t step[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                      0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ step[crc & 15];
        crc = crc >> 4 ^ step[crc & 15];
    }
    return ~crc;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------------- */

typedef struct node {
    uint8_t hash[32];
    uint64_t version; /* 0: new in the version being staged, not numbered yet */
    uint32_t nonce;
    uint8_t height, is_stub;
    struct node *left, *right; /* of a stub: left is what it forwards to */
    uint64_t size;
    uint32_t stamp, key_size, value_size;
    uint8_t data[]; /* key, then value */
} node;

typedef struct {
    void **items;
    size_t count, room;
} list;

/* Nodes come and go by tens of thousands a block: they are cut from slabs by size class, and what is freed is handed out again. */
#define CLASS 16
#define CLASSES 40
#define SLAB (256 << 10)

typedef struct slab {
    struct slab *next;
} slab;

typedef struct tree {
    node *root, *staged;
    node *unused[CLASSES]; /* by size class, linked by left */
    slab *slabs;
    uint8_t *cut, *cut_end; /* of the newest slab, not handed out yet */
    uint64_t version; /* of the staged root */
    int is_staged, failure;
    uint64_t failed_version;
    uint32_t failed_nonce, stamp;
    uint64_t id, loaded, nodes;
    int (*load)(uint64_t id, uint64_t version, uint32_t nonce);
    const uint8_t *supplied;
    size_t supplied_size;
    list orphans, dead, fresh; /* node* each */
    uint8_t *out;
    size_t out_size, out_room;
    uint64_t *offsets; /* of node i (from 0) in out; one more at the end of each: start, end pairs */
    size_t offsets_room;
    struct change *changes;
    size_t changes_room;
    list rest; /* change* each: what renewing leaves */
    uint8_t *scratch, *smallest;
    size_t scratch_room, smallest_room;
    uint32_t smallest_size;
    int smallest_known;
    jmp_buf trap;
} tree;

static void fail(tree *t, int why) {
    t->failure = why;
    longjmp(t->trap, 1);
}

static void *grow(tree *t, void *old, size_t *room, size_t wanted, size_t unit) {
    if (wanted <= *room) return old;
    size_t next = *room ? *room : 256;
    while (next < wanted) next *= 2;
    void *grown = realloc(old, next * unit);
    if (!grown) fail(t, NO_MEMORY);
    *room = next;
    return grown;
}

static void push(tree *t, list *l, void *item) {
    l->items = grow(t, l->items, &l->room, l->count + 1, sizeof(void *));
    l->items[l->count++] = item;
}

static void *at(list *l, size_t i) { return l->items[i]; }

static size_t class_of(uint32_t key_size, uint32_t value_size) { return (sizeof(node) + key_size + value_size + CLASS - 1) / CLASS; }

/* Zeroed but for its data; NULL: no memory. */
static node *hand_out(tree *t, uint32_t key_size, uint32_t value_size) {
    size_t class = class_of(key_size, value_size);
    node *n;
    if (class >= CLASSES) {
        n = malloc(class * CLASS);
    } else if (t->unused[class]) {
        n = t->unused[class], t->unused[class] = n->left;
    } else {
        if ((size_t)(t->cut_end - t->cut) < class * CLASS) {
            slab *s = malloc(SLAB);
            if (!s) return NULL;
            s->next = t->slabs, t->slabs = s;
            t->cut = (uint8_t *)s + CLASS, t->cut_end = (uint8_t *)s + SLAB;
        }
        n = (node *)t->cut, t->cut += class * CLASS;
    }
    if (n) memset(n, 0, sizeof(node)), n->key_size = key_size, n->value_size = value_size;
    return n;
}

static void take_back(tree *t, node *n) {
    size_t class = class_of(n->key_size, n->value_size);
    if (class >= CLASSES) free(n);
    else n->left = t->unused[class], t->unused[class] = n;
}

static node *new_node(tree *t, const uint8_t *key, uint32_t key_size, const uint8_t *value, uint32_t value_size, int height, uint64_t size) {
    node *n = hand_out(t, key_size, value_size);
    if (!n) fail(t, NO_MEMORY);
    n->height = (uint8_t)height, n->size = size, n->stamp = t->stamp;
    if (key_size) memcpy(n->data, key, key_size);
    if (value_size) memcpy(n->data + key_size, value, value_size);
    t->nodes++;
    return n;
}

/* NULL: no memory. */
static node *new_stub(tree *t, uint64_t version, uint32_t nonce, const uint8_t *hash) {
    node *n = hand_out(t, 0, 0);
    if (!n) return NULL;
    n->version = version, n->nonce = nonce, n->is_stub = 1;
    memcpy(n->hash, hash, 32);
    return n;
}

static void free_one(tree *t, node *n) {
    if (!n->is_stub) t->nodes--;
    take_back(t, n);
}

static void free_all(tree *t, node *n) {
    if (!n) return;
    if (!n->is_stub && n->height) free_all(t, n->left), free_all(t, n->right);
    free_one(t, n);
}

static int compare(const uint8_t *a, uint32_t a_size, const uint8_t *b, uint32_t b_size) {
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static size_t put_varint(uint8_t *to, uint64_t value) {
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) to[n++] = (uint8_t)(value | 0x80);
    to[n++] = (uint8_t)value;
    return n;
}

static int get_varint(const uint8_t *p, size_t size, size_t *pos, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (*pos >= size) return 0;
        uint8_t byte = p[(*pos)++];
        if (shift == 63 && byte > 1) return 0;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return 1;
    }
    return 0;
}

static void hash_node(tree *t, node *n) {
    uint8_t small[128];
    uint8_t *buffer = small;
    if (!n->height && n->key_size > 48) {
        t->scratch = grow(t, t->scratch, &t->scratch_room, (size_t)n->key_size + 96, 1);
        buffer = t->scratch;
    }
    size_t pos = put_varint(buffer, (uint64_t)n->height << 1);
    pos += put_varint(buffer + pos, n->size << 1);
    pos += put_varint(buffer + pos, n->version << 1);
    if (n->height) {
        buffer[pos++] = 32, memcpy(buffer + pos, n->left->hash, 32), pos += 32;
        buffer[pos++] = 32, memcpy(buffer + pos, n->right->hash, 32), pos += 32;
    } else {
        pos += put_varint(buffer + pos, n->key_size);
        memcpy(buffer + pos, n->data, n->key_size), pos += n->key_size;
        buffer[pos++] = 32, sha256(n->data + n->key_size, n->value_size, buffer + pos), pos += 32;
    }
    sha256(buffer, pos, n->hash);
}

/* A stored node (layout: docstring of iavl.py). NULL for bytes that are not one. */
static node *decode(tree *t, const uint8_t *raw, size_t size, uint64_t version, uint32_t nonce) {
    size_t pos = 0;
    uint64_t height, count, key_size, kid_version[2], kid_nonce[2];
    const uint8_t *kid_hash[2];
    if (size >= DELETED) return NULL;
    if (!get_varint(raw, size, &pos, &height) || !get_varint(raw, size, &pos, &count) || !get_varint(raw, size, &pos, &key_size)) return NULL;
    if (height > MAX_HEIGHT || key_size > size - pos) return NULL;
    const uint8_t *key = raw + pos;
    pos += key_size;
    if (!height) {
        node *leaf = new_node(t, key, (uint32_t)key_size, raw + pos, (uint32_t)(size - pos), 0, count);
        leaf->version = version, leaf->nonce = nonce;
        hash_node(t, leaf);
        return leaf;
    }
    uint32_t crc = crc32(0, key, key_size);
    for (int i = 0; i < 2; i++) {
        size_t start = pos;
        if (!get_varint(raw, size, &pos, &kid_version[i]) || !get_varint(raw, size, &pos, &kid_nonce[i]) || size - pos < 32) return NULL;
        if (kid_nonce[i] > 0xFFFFFFFFu) return NULL;
        crc = crc32(crc, raw + start, pos - start);
        kid_hash[i] = raw + pos, pos += 32;
    }
    if (size - pos != 4 || raw[pos] != crc >> 24 || raw[pos + 1] != (crc >> 16 & 255) || raw[pos + 2] != (crc >> 8 & 255) || raw[pos + 3] != (crc & 255))
        return NULL;
    node *n = new_node(t, key, (uint32_t)key_size, NULL, 0, (int)height, count);
    n->version = version, n->nonce = nonce;
    n->left = new_stub(t, kid_version[0], (uint32_t)kid_nonce[0], kid_hash[0]);
    n->right = new_stub(t, kid_version[1], (uint32_t)kid_nonce[1], kid_hash[1]);
    if (!n->left || !n->right) fail(t, NO_MEMORY);
    hash_node(t, n);
    return n;
}

static node *fetch(tree *t, node *stub) {
    t->supplied = NULL, t->supplied_size = 0;
    t->failed_version = stub->version, t->failed_nonce = stub->nonce;
    if (t->load(t->id, stub->version, stub->nonce) != OK || !t->supplied) fail(t, MISSING);
    node *n = decode(t, t->supplied, t->supplied_size, stub->version, stub->nonce);
    t->loaded++;
    if (!n) fail(t, DAMAGED);
    if (memcmp(n->hash, stub->hash, 32)) {
        free_all(t, n);
        fail(t, DAMAGED);
    }
    return n;
}

/* What a child pointer stands for, in memory; the pointer itself is mended. */
static node *kid(tree *t, node **slot) {
    node *n = *slot;
    if (n->is_stub) {
        if (n->left) return *slot = n->left;
        node *loaded = fetch(t, n);
        *slot = loaded;
        if (t->is_staged) {
            n->left = loaded;
            push(t, &t->dead, n);
        } else {
            take_back(t, n);
        }
        n = loaded;
    }
    n->stamp = t->stamp;
    return n;
}

static node *left_of(tree *t, node *n) { return kid(t, &n->left); }
static node *right_of(tree *t, node *n) { return kid(t, &n->right); }

/* ---- changing ---------------------------------------------------------------------------------------------------------- */

typedef struct change {
    const uint8_t *key, *value;
    uint32_t key_size, value_size;
} change;

static void drop(tree *t, node *n) {
    if (n->version) push(t, &t->orphans, n);
    else free_one(t, n);
}

static node *own(tree *t, node *n) {
    if (!n->version) return n;
    node *copy = new_node(t, n->data, n->key_size, NULL, 0, n->height, n->size);
    copy->left = n->left, copy->right = n->right;
    drop(t, n);
    return copy;
}

static node *with_key(tree *t, node *n, const uint8_t *key, uint32_t key_size) {
    node *grown = hand_out(t, key_size, 0);
    if (!grown) fail(t, NO_MEMORY);
    memcpy(grown, n, sizeof(node));
    grown->key_size = key_size;
    memcpy(grown->data, key, key_size);
    take_back(t, n);
    return grown;
}

static void measure(tree *t, node *n) {
    node *left = left_of(t, n), *right = right_of(t, n);
    n->height = (uint8_t)((left->height > right->height ? left->height : right->height) + 1);
    n->size = left->size + right->size;
}

static int tilt(tree *t, node *n) { return n->height ? (int)left_of(t, n)->height - (int)right_of(t, n)->height : 0; }

static node *rotate_right(tree *t, node *n) {
    node *top = own(t, left_of(t, n));
    n->left = top->right, top->right = n;
    measure(t, n), measure(t, top);
    return top;
}

static node *rotate_left(tree *t, node *n) {
    node *top = own(t, right_of(t, n));
    n->right = top->left, top->left = n;
    measure(t, n), measure(t, top);
    return top;
}

static node *balance(tree *t, node *n) {
    int lean = tilt(t, n);
    if (lean > 1) {
        if (tilt(t, left_of(t, n)) < 0) n->left = rotate_left(t, own(t, left_of(t, n)));
        return rotate_right(t, n);
    }
    if (lean < -1) {
        if (tilt(t, right_of(t, n)) > 0) n->right = rotate_right(t, own(t, right_of(t, n)));
        return rotate_left(t, n);
    }
    return n;
}

static node *set(tree *t, node *n, const change *c, int *inserted) {
    if (!n->height) {
        int order = compare(c->key, c->key_size, n->data, n->key_size);
        node *leaf = new_node(t, c->key, c->key_size, c->value, c->value_size, 0, 1);
        if (!order) {
            drop(t, n);
            return leaf;
        }
        *inserted = 1;
        node *larger = order > 0 ? leaf : n;
        node *parent = new_node(t, larger->data, larger->key_size, NULL, 0, 1, 2);
        parent->left = order < 0 ? leaf : n, parent->right = order < 0 ? n : leaf;
        return parent;
    }
    n = own(t, n);
    if (compare(c->key, c->key_size, n->data, n->key_size) < 0) n->left = set(t, left_of(t, n), c, inserted);
    else n->right = set(t, right_of(t, n), c, inserted);
    if (!*inserted) return n;
    measure(t, n);
    return balance(t, n);
}

/* Removes a key that is there. NULL when nothing is left. When the smallest key below changed, t->smallest holds the new one until the
   inner node that carried the old one takes it over. */
static void remember(tree *t, node *n) {
    t->smallest = grow(t, t->smallest, &t->smallest_room, n->key_size, 1);
    memcpy(t->smallest, n->data, n->key_size);
    t->smallest_size = n->key_size, t->smallest_known = 1;
}

static node *take(tree *t, node *n, const change *c) {
    if (!n->height) {
        drop(t, n);
        return NULL;
    }
    n = own(t, n);
    if (compare(c->key, c->key_size, n->data, n->key_size) < 0) {
        node *left = take(t, left_of(t, n), c);
        if (!left) {
            remember(t, n);
            node *rest = right_of(t, n);
            free_one(t, n);
            return rest;
        }
        n->left = left;
    } else {
        node *right = take(t, right_of(t, n), c);
        if (!right) {
            node *rest = left_of(t, n);
            free_one(t, n);
            return rest;
        }
        n->right = right;
        if (t->smallest_known) {
            n = with_key(t, n, t->smallest, t->smallest_size);
            t->smallest_known = 0;
        }
    }
    measure(t, n);
    return balance(t, n);
}

/* Writes the changes, sorted from `low` to before `high`, whose keys are there already: they move nothing, so each node below is visited
   once for all of them. The others are left to t->rest, in order. Returns n itself when nothing below it changed. */
static node *renew(tree *t, node *n, change *low, change *high) {
    if (!n->height) {
        node *leaf = n;
        for (change *c = low; c < high; c++) {
            if (c->value_size == DELETED || compare(c->key, c->key_size, n->data, n->key_size)) {
                push(t, &t->rest, c);
            } else {
                leaf = new_node(t, c->key, c->key_size, c->value, c->value_size, 0, 1);
            }
        }
        if (leaf != n) drop(t, n);
        return leaf;
    }
    change *from = low, *to = high;
    while (from < to) {
        change *middle = from + (to - from) / 2;
        if (compare(middle->key, middle->key_size, n->data, n->key_size) < 0) from = middle + 1;
        else to = middle;
    }
    node *left = NULL, *right = NULL;
    if (low < from) {
        node *old = left_of(t, n);
        left = renew(t, old, low, from);
        if (left == old) left = NULL;
    }
    if (from < high) {
        node *old = right_of(t, n);
        right = renew(t, old, from, high);
        if (right == old) right = NULL;
    }
    if (!left && !right) return n;
    n = own(t, n);
    if (left) n->left = left;
    if (right) n->right = right;
    return n;
}

static node *find(tree *t, node **slot, const uint8_t *key, uint32_t key_size) {
    if (!*slot) return NULL;
    node *n = kid(t, slot);
    while (n->height) n = compare(key, key_size, n->data, n->key_size) < 0 ? left_of(t, n) : right_of(t, n);
    return compare(key, key_size, n->data, n->key_size) ? NULL : n;
}

static void number(tree *t, node *n) {
    push(t, &t->fresh, n);
    n->nonce = (uint32_t)t->fresh.count;
    n->version = t->version;
    if (n->height) {
        if (!n->left->version) number(t, n->left);
        if (!n->right->version) number(t, n->right);
    }
}

static void finish(tree *t) {
    t->fresh.count = 0, t->out_size = 0;
    if (!t->staged || t->staged->version) return;
    number(t, t->staged);
    size_t count = t->fresh.count;
    t->offsets = grow(t, t->offsets, &t->offsets_room, 2 * count, sizeof(uint64_t));
    for (size_t i = count; i-- > 0;) hash_node(t, at(&t->fresh, i));
    for (size_t i = 0; i < count; i++) {
        node *n = at(&t->fresh, i);
        t->out = grow(t, t->out, &t->out_room, t->out_size + n->key_size + n->value_size + 160, 1);
        uint8_t *to = t->out + t->out_size;
        size_t pos = put_varint(to, n->height);
        pos += put_varint(to + pos, n->size);
        pos += put_varint(to + pos, n->key_size);
        memcpy(to + pos, n->data, n->key_size), pos += n->key_size;
        if (n->height) {
            node *kids[2] = {n->left, n->right};
            uint32_t crc = crc32(0, n->data, n->key_size);
            for (int k = 0; k < 2; k++) {
                size_t start = pos;
                pos += put_varint(to + pos, kids[k]->version);
                pos += put_varint(to + pos, kids[k]->nonce);
                crc = crc32(crc, to + start, pos - start);
                memcpy(to + pos, kids[k]->hash, 32), pos += 32;
            }
            for (int b = 24; b >= 0; b -= 8) to[pos++] = (uint8_t)(crc >> b);
        } else {
            memcpy(to + pos, n->data + n->key_size, n->value_size), pos += n->value_size;
        }
        t->offsets[2 * i] = t->out_size;
        t->out_size += pos;
        t->offsets[2 * i + 1] = t->out_size;
    }
}

static void mend(node *n) {
    if (n->is_stub || !n->height) return;
    if (n->left->is_stub && n->left->left) n->left = n->left->left;
    if (n->right->is_stub && n->right->left) n->right = n->right->left;
}

static void bury(tree *t) {
    for (size_t i = 0; i < t->dead.count; i++) take_back(t, at(&t->dead, i));
    t->dead.count = t->orphans.count = t->fresh.count = 0;
    t->staged = NULL, t->is_staged = 0;
}

/* ---- what Python calls ------------------------------------------------------------------------------------------------- */

EXPORT int core_stored_form(void) { return STORED_FORM; }

EXPORT tree *core_open(uint64_t id, uint64_t version, uint32_t nonce, const uint8_t *hash, int (*load)(uint64_t, uint64_t, uint32_t)) {
#if defined(__x86_64__)
    if (has_native()) hash_blocks = blocks_native;
#endif
    tree *t = calloc(1, sizeof(tree));
    if (!t) return NULL;
    t->id = id, t->load = load;
    if (version) {
        t->root = new_stub(t, version, nonce, hash);
        if (!t->root) {
            free(t);
            return NULL;
        }
    }
    return t;
}

EXPORT void core_close(tree *t) {
    free_all(t, t->root);
    for (slab *s = t->slabs, *next; s; s = next) next = s->next, free(s);
    free(t->orphans.items), free(t->dead.items), free(t->fresh.items), free(t->rest.items), free(t->changes);
    free(t->out), free(t->offsets), free(t->scratch), free(t->smallest);
    free(t);
}

EXPORT void core_supply(tree *t, const uint8_t *raw, size_t size) { t->supplied = raw, t->supplied_size = size; }

EXPORT void core_failure(tree *t, uint64_t *version, uint32_t *nonce) { *version = t->failed_version, *nonce = t->failed_nonce; }

EXPORT uint64_t core_nodes(tree *t) { return t->nodes; }

EXPORT uint64_t core_loaded(tree *t) { return t->loaded; }

/* 1 and the value when the committed version has the key, 0 when not, negative when a node cannot be had. */
EXPORT int core_get(tree *t, const uint8_t *key, uint32_t key_size, const uint8_t **value, uint32_t *value_size) {
    if (setjmp(t->trap)) return -t->failure;
    node *n = find(t, &t->root, key, key_size);
    if (!n) return 0;
    *value = n->data + n->key_size, *value_size = n->value_size;
    return 1;
}

static int visit(tree *t, node *n, const uint8_t *start, uint32_t start_size, const uint8_t *end, uint32_t end_size, int reverse, uint32_t *left) {
    if (!*left) return 0;
    if (!n->height) {
        if (start && compare(n->data, n->key_size, start, start_size) < 0) return 1;
        if (end && compare(n->data, n->key_size, end, end_size) >= 0) return 1;
        size_t size = 8 + (size_t)n->key_size + n->value_size;
        t->out = grow(t, t->out, &t->out_room, t->out_size + size, 1);
        memcpy(t->out + t->out_size, &n->key_size, 4), memcpy(t->out + t->out_size + 4, &n->value_size, 4);
        memcpy(t->out + t->out_size + 8, n->data, (size_t)n->key_size + n->value_size);
        t->out_size += size;
        (*left)--;
        return 1;
    }
    int go_left = !start || compare(start, start_size, n->data, n->key_size) < 0;
    int go_right = !end || compare(end, end_size, n->data, n->key_size) > 0;
    for (int turn = 0; turn < 2; turn++) {
        if ((turn == 0) != (reverse != 0)) {
            if (go_left && !visit(t, left_of(t, n), start, start_size, end, end_size, reverse, left)) return 0;
        } else if (go_right && !visit(t, right_of(t, n), start, start_size, end, end_size, reverse, left)) {
            return 0;
        }
    }
    return 1;
}

/* Up to `limit` entries of the committed version into the out buffer: key size, value size, key, value. Returns how many. Not while
   a version is staged: the buffer holds its nodes then, so Python copies them first. */
EXPORT int core_range(tree *t, const uint8_t *start, uint32_t start_size, const uint8_t *end, uint32_t end_size, int reverse, uint32_t limit) {
    if (setjmp(t->trap)) return -t->failure;
    t->out_size = 0;
    if (!t->root) return 0;
    uint32_t room = limit;
    visit(t, kid(t, &t->root), start, start_size, end, end_size, reverse, &room);
    return (int)(limit - room);
}

EXPORT const uint8_t *core_out(tree *t, size_t *size) {
    *size = t->out_size;
    return t->out;
}

EXPORT const uint64_t *core_offsets(tree *t) { return t->offsets; }

/* Stages `version`: `count` changes, sizes as (key size, value size or DELETED) pairs, bytes as key, value, key, value … */
EXPORT int core_stage(tree *t, uint64_t version, uint32_t count, const uint32_t *sizes, const uint8_t *data, size_t data_size) {
    if (t->is_staged) return -BAD_INPUT;
    if (setjmp(t->trap)) return -t->failure;
    t->is_staged = 1, t->version = version, t->stamp++;
    node *root = t->root ? kid(t, &t->root) : NULL;
    const uint8_t *bytes = data, *end = data + data_size;
    t->changes = grow(t, t->changes, &t->changes_room, count, sizeof(change));
    for (uint32_t i = 0; i < count; i++) {
        change *c = t->changes + i;
        c->key = bytes, c->key_size = sizes[2 * i], c->value_size = sizes[2 * i + 1];
        if ((size_t)(end - bytes) < c->key_size) fail(t, BAD_INPUT);
        bytes += c->key_size, c->value = bytes;
        if (i && compare(c[-1].key, c[-1].key_size, c->key, c->key_size) >= 0) fail(t, BAD_INPUT);
        if (c->value_size == DELETED) continue;
        if ((size_t)(end - bytes) < c->value_size) fail(t, BAD_INPUT);
        bytes += c->value_size;
    }
    t->rest.count = 0;
    if (root) root = renew(t, root, t->changes, t->changes + count);
    else for (uint32_t i = 0; i < count; i++) push(t, &t->rest, t->changes + i);
    for (size_t i = 0; i < t->rest.count; i++) {
        change *c = at(&t->rest, i);
        int inserted = 0;
        if (c->value_size != DELETED) {
            root = root ? set(t, root, c, &inserted) : new_node(t, c->key, c->key_size, c->value, c->value_size, 0, 1);
        } else if (root && find(t, &root, c->key, c->key_size)) {
            t->smallest_known = 0;
            root = take(t, root, c);
        }
    }
    t->staged = root;
    finish(t);
    return (int)t->fresh.count;
}

EXPORT int core_staged_root(tree *t, uint64_t *version, uint32_t *nonce, uint8_t *hash) {
    if (!t->staged) return 0;
    *version = t->staged->version, *nonce = t->staged->nonce;
    memcpy(hash, t->staged->hash, 32);
    return 1;
}

EXPORT uint32_t core_orphans(tree *t) { return (uint32_t)t->orphans.count; }

/* The keys of the nodes the staged version no longer uses, version (8) and nonce (4) big-endian each. */
EXPORT void core_write_orphans(tree *t, uint8_t *to) {
    for (size_t i = 0; i < t->orphans.count; i++, to += 12) {
        node *n = at(&t->orphans, i);
        for (int b = 0; b < 8; b++) to[b] = (uint8_t)(n->version >> (56 - 8 * b));
        for (int b = 0; b < 4; b++) to[8 + b] = (uint8_t)(n->nonce >> (24 - 8 * b));
    }
}

/* The staged version becomes the committed one. */
EXPORT void core_commit(tree *t) {
    for (size_t i = 0; i < t->fresh.count; i++) mend(at(&t->fresh, i));
    for (size_t i = 0; i < t->orphans.count; i++) free_one(t, at(&t->orphans, i));
    t->root = t->staged;
    bury(t);
}

/* Forget what is staged. */
EXPORT void core_discard(tree *t) {
    if (!t->is_staged) return;
    for (size_t i = 0; i < t->orphans.count; i++) mend(at(&t->orphans, i));
    for (size_t i = 0; i < t->fresh.count; i++) free_one(t, at(&t->fresh, i));
    bury(t);
}

static void evict(tree *t, node **slot, uint32_t before) {
    node *n = *slot;
    if (n->is_stub) return;
    if (n->stamp < before) {
        node *stub = new_stub(t, n->version, n->nonce, n->hash);
        if (!stub) return;
        *slot = stub;
        free_all(t, n);
    } else if (n->height) {
        evict(t, &n->left, before), evict(t, &n->right, before);
    }
}

/* Forget committed nodes that were last visited more than `age` stages ago (they load again); returns how many stay. */
EXPORT uint64_t core_evict(tree *t, uint32_t age) {
    if (!t->is_staged && t->root && t->stamp > age) evict(t, &t->root, t->stamp - age);
    return t->nodes;
}
