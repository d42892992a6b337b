// Elements, vectors of SLOTS floats, and what is made of them: float, or bfloat16 (-DBFLOAT16) with float sums.

#pragma once

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 16

typedef float vec __attribute__((vector_size(4 * SLOTS)));
typedef int64_t whole;

#ifdef BFLOAT16
typedef uint16_t elem;
static inline float load(elem x) {
    union { uint32_t bits; float value; } u = {(uint32_t)x << 16};
    return u.value;
}
static inline elem store(float x) {  // to nearest, ties to even
    union { float value; uint32_t bits; } u = {x};
    if (x != x) return 0x7fc0;
    return (elem)((u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16);
}
#else
typedef float elem;
static inline float load(elem x) { return x; }
static inline elem store(float x) { return x; }
#endif

#ifdef BFLOAT16
static inline vec load_vec(const elem *x) {
    typedef uint16_t halves __attribute__((vector_size(2 * SLOTS)));
    typedef uint32_t words __attribute__((vector_size(4 * SLOTS)));
    halves narrow;
    memcpy(&narrow, x, sizeof narrow);
    return (vec)(__builtin_convertvector(narrow, words) << 16);
}
#else
static inline vec load_vec(const elem *x) {
    vec y;
    memcpy(&y, x, sizeof y);
    return y;
}
#endif

typedef int32_t ints __attribute__((vector_size(4 * SLOTS)));
static inline vec pick(ints where, vec a, vec b) { return (vec)(((ints)a & where) | ((ints)b & ~where)); }
static inline vec all(float x) { return x - (vec){0}; }

// e^x, within 2 units in the last place from -87 to 88; 0 below. Cephes' polynomial (Moshier), after x = n ln 2 + r.
static inline vec exponential(vec x) {
    ints tiny = x < all(-87.0f);
    x = pick(tiny, all(-87.0f), pick(x > all(88.0f), all(88.0f), x));
    vec scaled = x * 1.44269504f + 0.5f;
    ints n = __builtin_convertvector(scaled, ints);
    n += __builtin_convertvector(n, vec) > scaled;  // the conversion cuts towards 0; a comparison is -1 where it holds
    vec times = __builtin_convertvector(n, vec), r = x - times * 0.693359375f + times * 2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * r * r + r + 1.0f) * (vec)((n + 127) << 23);
    return pick(tiny, all(0.0f), p);
}

typedef float half __attribute__((vector_size(2 * SLOTS)));
typedef float quarter __attribute__((vector_size(SLOTS)));

static inline float total(vec x) {
    union { vec all; half halves[2]; } whole_ = {x};
    union { half all; quarter quarters[2]; } half_ = {whole_.halves[0] + whole_.halves[1]};
    quarter four = half_.quarters[0] + half_.quarters[1];
    return (four[0] + four[1]) + (four[2] + four[3]);
}

#ifdef BFLOAT16
static inline void store_vec(elem *to, vec x) {
    typedef uint16_t halves __attribute__((vector_size(2 * SLOTS)));
    typedef uint32_t words __attribute__((vector_size(4 * SLOTS)));
    words bits = (words)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    bits = (words)pick(x == x, (vec)rounded, (vec)(0 * bits + 0x7fc0));
    halves narrow = __builtin_convertvector(bits, halves);
    memcpy(to, &narrow, sizeof narrow);
}
#else
static inline void store_vec(elem *to, vec x) { memcpy(to, &x, sizeof x); }
#endif

static inline vec silu(vec x) { return x / (1.0f + exponential(-x)); }

#ifdef __clang__
#define BLEND(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define BLEND(a, b, ...) __builtin_shuffle(a, b, (ints){__VA_ARGS__})
#endif
#define SWAP(step, low, high)                                          \
    for (int i = 0; i < SLOTS; i++)                                    \
        if (!(i & step)) {                                             \
            vec a = x[i], b = x[i + step];                             \
            x[i] = BLEND(a, b, low), x[i + step] = BLEND(a, b, high);  \
        }
#define LIST(...) __VA_ARGS__

// x [SLOTS][SLOTS] turned: pairs of rows swap their far parts, eight apart, then four, two, one (Eklundh 1972).
static inline void turn(vec *x) {
#pragma GCC unroll 16
    SWAP(8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23), LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#pragma GCC unroll 16
    SWAP(4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27), LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
#pragma GCC unroll 16
    SWAP(2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29), LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
#pragma GCC unroll 16
    SWAP(1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30), LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
}

#define FOLD(count, low, high) \
    for (int i = 0; i < count; i++) x[i] = BLEND(x[i], x[i + count], low) + BLEND(x[i], x[i + count], high);

// The totals of x [SLOTS], each summed in the order of `total`. x is spent.
static inline vec totals(vec *x) {
    FOLD(8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23), LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    FOLD(4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27), LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    FOLD(2, LIST(0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30), LIST(1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31))
    FOLD(1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30), LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
    return x[0];
}
