// Products of few rows: y [N, O] = x [N, D] W [O, D]^T. W is read where it lies, SLOTS outputs at a time, each by one
// thread; sums are float. How a sum is ordered depends on D alone: neither the other rows nor the threads change a bit.
//
// In bfloat16, where the CPU multiplies tiles (AMX) and D is a multiple of STEP, a tile of W is 16 outputs by 32 channels
// as it lies, and x is laid out beside it in pairs of channels. Of int8 codes it is 16 outputs by 64 channels: a token's
// channels then become whole numbers of 16 bits, 256 high + low, by a scale of its own, so that both halves multiply
// codes as they lie and the sums are exact. A token alone is multiplied by vectors of such whole numbers instead: a tile
// would be empty. Elsewhere x is float, and vectors run along D.

#pragma once

#include <omp.h>

#include "numbers.h"

#define STEP 32          // channels of a tile
#define CODED 64         // of a tile of codes
#define UNSPILT 8192     // channels of codes by 16 bits whose sums 32 bits hold, in SLOTS parts
#define AHEAD 4096       // bytes of codes that are fetched before they are read
#define PAGE 4096
#define GRAIN (1 << 21)  // multiplications between which threads wait for each other a few times

typedef struct {
    const void *weight;   // [out][in]: elements, or int8 where there are scales
    const elem *bias;     // [out], or none
    const float *scales;  // [out], or none
    whole out, in;
} matrix;

typedef struct {
    const void *x;           // as products read it: tiles, or float; beside codes the high halves, or all 16 bits
    whole count, columns;    // columns: tokens that stand in a tile, 1 or SLOTS
    int copied;
    const int8_t *low;       // the low halves beside codes
    const float *scales;     // of tokens, beside codes
} input;

static inline whole up_to(whole parts, whole count) { return (parts + count - 1) / count; }
static inline whole least(whole a, whole b) { return a < b ? a : b; }

// This thread's share of so many parts.
static inline void share(whole parts, whole *first, whole *last) {
    whole threads = omp_get_num_threads(), own = omp_get_thread_num();
    *first = parts * own / threads, *last = parts * (own + 1) / threads;
}

// How many of the threads are worth waiting for, given so many multiplications.
static inline int hands(int threads, whole multiplications) {
    return (int)least(threads, 1 + multiplications / GRAIN);
}

// --- by tiles ----------------------------------------------------------------------------------------------------------

#if defined(BFLOAT16) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

static int granted;
__attribute__((constructor)) static void ask_for_tiles(void) { granted = !syscall(SYS_arch_prctl, 0x1023, 18); }
static inline int by_tiles(whole D) { return granted && D % STEP == 0; }
#if defined(__AMX_INT8__) && defined(__AVX512VNNI__)
static inline int by_codes(const matrix *m) { return m->scales && granted && m->in % CODED == 0; }
#else
static inline int by_codes(const matrix *m) { return 0 * !m; }
#endif

// Rows of a matrix from `first`, `bytes` each: as they lie, or copied to `room` where some are missing, which are 0.
static inline const void *block_of(const matrix *m, whole first, whole bytes, void *room) {
    const char *from = (const char *)m->weight + first * bytes;
    if (first + SLOTS <= m->out) return from;
    memset(room, 0, SLOTS * bytes);
    return memcpy(room, from, (m->out - first) * bytes);
}

static inline whole spare(const matrix *const *m, const whole *first, int R) {
    return first[0] + SLOTS > m[0]->out || first[R - 1] + SLOTS > m[R - 1]->out ? SLOTS : 0;
}

// Tiles 0 to 3 are sums, 4 and 5 parts of W, 6 and 7 tokens. Each thread has its own.
static void open_tiles(whole columns) {
    struct { uint8_t palette, start, none[14]; uint16_t bytes[16]; uint8_t rows[16]; } told = {.palette = 1};
    for (int i = 0; i < 8; i++) told.rows[i] = 16, told.bytes[i] = i == 4 || i == 5 ? 64 : 4 * columns;
    if (granted) _tile_loadconfig(&told);
}
static void close_tiles(void) { if (granted) _tile_release(); }

// How far on lies what is read next: the blocks of a matrix after those at work. The processor does not foresee sixteen
// short rows read side by side, so it is told: a tile's bytes of what comes while one of these is read. Of rows of a page
// or more (0 here) it does, and being told costs.
static inline whole beyond(int R, const matrix *const *m, whole bytes) {
    return bytes >= PAGE ? 0 : SLOTS * bytes * (R > 1 && m[0] == m[1] ? R : 1);
}
static inline void fetch_tile(const void *next) {
    for (int i = 0; i < SLOTS; i++) _mm_prefetch((const char *)next + 64 * i, _MM_HINT_T0);
}

// R blocks of outputs by T groups of tokens.
static inline __attribute__((always_inline)) void tiles(const int R, const int T, const matrix *const *m, const whole *first,
                                                        const input *x, whole group, vec (*sums)[2][SLOTS]) {
    whole D = m[0]->in, step = STEP * x->columns, beside = 4 * x->columns, rows = spare(m, first, R);
    whole next = beyond(R, m, D * sizeof(elem));
    elem room[2][1 + rows * D];
    const elem *w[2], *from[2];
    for (int r = 0; r < R; r++) w[r] = block_of(m[r], first[r], D * sizeof(elem), room[r]);
    for (int t = 0; t < T; t++) from[t] = (const elem *)x->x + (group + t) * D * x->columns;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (whole k = 0; k < D; k += STEP) {
        whole at = k / STEP * step;
        for (int r = 0; r < R && next; r++) fetch_tile((const char *)w[r] + next + SLOTS * sizeof(elem) * k);
        _tile_loadd(4, w[0] + k, D * sizeof(elem));
        _tile_loadd(6, from[0] + at, beside);
        _tile_dpbf16ps(0, 4, 6);
        if (T > 1) _tile_loadd(7, from[1] + at, beside);
        if (T > 1) _tile_dpbf16ps(1, 4, 7);
        if (R > 1) _tile_loadd(5, w[1] + k, D * sizeof(elem));
        if (R > 1) _tile_dpbf16ps(2, 5, 6);
        if (R > 1 && T > 1) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums[0][0], beside);
    if (T > 1) _tile_stored(1, sums[0][1], beside);
    if (R > 1) _tile_stored(2, sums[1][0], beside);
    if (R > 1 && T > 1) _tile_stored(3, sums[1][1], beside);
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++)
            if (x->columns > 1) turn(sums[r][t]);
}

// 256 high + low, rounded once.
static inline vec put_together(ints high, ints low) {
    typedef double wider __attribute__((vector_size(8 * SLOTS)));
    return __builtin_convertvector(256 * __builtin_convertvector(high, wider) + __builtin_convertvector(low, wider), vec);
}

// R blocks of outputs, held as codes, by one group of tokens.
static inline __attribute__((always_inline)) void code_tiles(const int R, const matrix *const *m, const whole *first,
                                                             const input *x, whole group, vec (*sums)[2][SLOTS], int t) {
    whole D = m[0]->in, beside = 4 * SLOTS, rows = spare(m, first, R);
    int8_t room[2][1 + rows * D];
    whole next = beyond(R, m, D);
    const int8_t *w[2], *high = (const int8_t *)x->x + group * D * SLOTS, *low = x->low + group * D * SLOTS;
    ints found[4][SLOTS];
    for (int r = 0; r < R; r++) w[r] = block_of(m[r], first[r], D, room[r]);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (whole k = 0; k < D; k += CODED) {
        for (int r = 0; r < R && next; r++) fetch_tile(w[r] + next + SLOTS * k);
        _tile_loadd(4, w[0] + k, D);
        _tile_loadd(6, high + k * SLOTS, beside);
        _tile_loadd(7, low + k * SLOTS, beside);
        _tile_dpbssd(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        if (R > 1) _tile_loadd(5, w[1] + k, D);
        if (R > 1) _tile_dpbssd(2, 5, 6);
        if (R > 1) _tile_dpbsud(3, 5, 7);
    }
    _tile_stored(0, found[0], beside);
    _tile_stored(1, found[1], beside);
    if (R > 1) _tile_stored(2, found[2], beside);
    if (R > 1) _tile_stored(3, found[3], beside);
    for (int r = 0; r < R; r++) {
        for (whole i = 0; i < SLOTS; i++) sums[r][t][i] = put_together(found[2 * r][i], found[2 * r + 1][i]);
        turn(sums[r][t]);
        for (whole i = 0; i < SLOTS; i++) sums[r][t][i] *= x->scales[group * SLOTS + i];
    }
}

static inline int64_t exact_total(__m512i parts) {
    return _mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_cvtepi32_epi64(_mm512_castsi512_si256(parts)),
                                                    _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(parts, 1))));
}

// SLOTS outputs, held as codes, of a token alone: four rows at a time, whose sums do not wait for each other.
static inline void code_rows(const matrix *m, whole first, const input *x, vec *sum) {
    enum { TOGETHER = 4 };
    const int16_t *token = x->x;
    for (whole r = 0; r < SLOTS; r += TOGETHER) {
        int64_t exact[TOGETHER] = {0};
        const int8_t *rows[TOGETHER];
        for (int i = 0; i < TOGETHER; i++)
            rows[i] = (const int8_t *)m->weight + least(first + r + i, m->out - 1) * m->in;
        for (whole k = 0, end; k < m->in; k = end) {
            __m512i parts[TOGETHER] = {0};
            for (end = least(m->in, k + UNSPILT); k < end; k += CODED / 2) {
                for (int i = 0; i < 2; i++) _mm_prefetch(rows[0] + AHEAD + TOGETHER * k + 64 * i, _MM_HINT_T0);
                for (int i = 0; i < TOGETHER; i++) {
                    __m512i row = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(rows[i] + k)));
                    parts[i] = _mm512_dpwssd_epi32(parts[i], _mm512_loadu_si512(token + k), row);
                }
            }
            for (int i = 0; i < TOGETHER; i++) exact[i] += exact_total(parts[i]);
        }
        for (int i = 0; i < TOGETHER; i++) (*sum)[r + i] = (float)exact[i] * x->scales[0];
    }
}

// Tokens of a group, STEP channels of each, in pairs: to [pair][token].
static void pair_up(const elem *x, whole stride, whole count, elem *to) {
    vec words[SLOTS] = {0};
    for (whole t = 0; t < count; t++) memcpy(&words[t], x + t * stride, sizeof(vec));
    turn(words);
    memcpy(to, words, sizeof words);
}

// The scale by which a token's channels become whole numbers of 16 bits; not finite where one of them is not. As whole
// numbers the bits of floats are in the order of their sizes, what is not finite last.
static inline float scale_of(const elem *x, whole D) {
    ints most = {0};
    for (whole d = 0; d < D; d += SLOTS) {
        ints size = (ints)load_vec(x + d) & 0x7fffffff;
        most = (ints)pick(size > most, (vec)size, (vec)most);
    }
    union { int32_t bits; float value; } largest = {0};
    for (int i = 0; i < SLOTS; i++) largest.bits = most[i] > largest.bits ? most[i] : largest.bits;
    return largest.value < 1e-30f ? 1 : largest.value / 32512;  // 127 * 256: the high half stays within int8
}

static inline __m512i in_whole_numbers(const elem *x, float scale) {
    return _mm512_cvtps_epi32((__m512)(load_vec(x) * (1 / scale)));
}

// A token alone: to `all_bits` [D].
static inline void code_one(const elem *x, whole D, float *scale, int16_t *all_bits) {
    *scale = scale_of(x, D);
    for (whole d = 0; d < D; d += SLOTS)
        _mm256_storeu_si256((__m256i *)(all_bits + d), _mm512_cvtepi32_epi16(in_whole_numbers(x + d, *scale)));
}

// A group of tokens in halves: to high and low [D / 4][SLOTS][4].
static void code_up(const elem *x, whole D, whole count, float *scales, int8_t *high, int8_t *low) {
    for (whole t = 0; t < SLOTS; t++) scales[t] = t < count ? scale_of(x + t * D, D) : 1;
    for (whole k = 0; k < D; k += CODED) {
        vec highs[SLOTS] = {0}, lows[SLOTS] = {0};
        for (whole t = 0; t < count; t++)
            for (int i = 0; i < CODED / SLOTS; i++) {
                __m512i found = in_whole_numbers(x + t * D + k + i * SLOTS, scales[t]);
                _mm_storeu_si128((__m128i *)&highs[t] + i, _mm512_cvtepi32_epi8(_mm512_srai_epi32(found, 8)));
                _mm_storeu_si128((__m128i *)&lows[t] + i, _mm512_cvtepi32_epi8(found));
            }
        turn(highs), turn(lows);
        memcpy(high + k * SLOTS, highs, sizeof highs);
        memcpy(low + k * SLOTS, lows, sizeof lows);
    }
}
#else
static inline int by_tiles(whole D) { return 0 * D; }
static inline int by_codes(const matrix *m) { return 0 * !m; }
static inline void code_one(const elem *x, whole D, float *scale, int16_t *all_bits) {
    (void)x, (void)D, (void)scale, (void)all_bits;
}
static void code_up(const elem *x, whole D, whole count, float *scales, int8_t *high, int8_t *low) {
    (void)x, (void)D, (void)count, (void)scales, (void)high, (void)low;
}
static inline void code_rows(const matrix *m, whole first, const input *x, vec *sum) {
    (void)m, (void)first, (void)x, (void)sum;
}
static inline void code_tiles(const int R, const matrix *const *m, const whole *first, const input *x, whole group,
                              vec (*sums)[2][SLOTS], int t) {
    (void)R, (void)m, (void)first, (void)x, (void)group, (void)sums, (void)t;
}
static void open_tiles(whole columns) { (void)columns; }
static void close_tiles(void) {}
static inline void tiles(const int R, const int T, const matrix *const *m, const whole *first, const input *x, whole group,
                         vec (*sums)[2][SLOTS]) {
    (void)R, (void)T, (void)m, (void)first, (void)x, (void)group, (void)sums;
}
static void pair_up(const elem *x, whole stride, whole count, elem *to) { (void)x, (void)stride, (void)count, (void)to; }
#endif

// --- by vectors --------------------------------------------------------------------------------------------------------

enum { HELD, WIDE, CODES };  // what a row of weights is: elements, float, int8

static inline __attribute__((always_inline)) vec weights_at(const int kind, const void *w, whole at) {
    vec x;
    if (kind == HELD) return load_vec((const elem *)w + at);
    if (kind == CODES) {
        typedef int8_t codes __attribute__((vector_size(SLOTS)));
        codes narrow;
        memcpy(&narrow, (const int8_t *)w + at, sizeof narrow);
        return __builtin_convertvector(narrow, vec);
    }
    memcpy(&x, (const float *)w + at, sizeof x);
    return x;
}

// The same of the last `count` of a row; zeros beyond them.
static inline vec last_weights(const int kind, const void *w, whole at, whole count) {
    vec x = {0};
    for (whole i = 0; i < count; i++)
        x[i] = kind == HELD ? load(((const elem *)w)[at + i])
             : kind == WIDE ? ((const float *)w)[at + i] : (float)((const int8_t *)w)[at + i];
    return x;
}

// R rows of W [.][D] by T rows of x [.][D]: out [t][r], rows of out SLOTS apart.
static inline __attribute__((always_inline)) void part(const int kind, const int R, const int T, const void *w, whole row,
                                                       const float *x, whole D, float *out) {
    vec sum[SLOTS] = {0}, from[4] = {0};
    whole d = 0;
    for (; d + SLOTS <= D; d += SLOTS) {
        for (int t = 0; t < T; t++) memcpy(&from[t], x + t * D + d, sizeof(vec));
        for (int r = 0; r < R; r++) {
            vec weight = weights_at(kind, w, (row + r) * D + d);
            for (int t = 0; t < T; t++) sum[4 * t + r] += weight * from[t];
        }
    }
    if (d < D) {
        memset(from, 0, sizeof from);
        for (int t = 0; t < T; t++) memcpy(&from[t], x + t * D + d, (D - d) * sizeof(float));
        for (int r = 0; r < R; r++) {
            vec weight = last_weights(kind, w, (row + r) * D + d, D - d);
            for (int t = 0; t < T; t++) sum[4 * t + r] += weight * from[t];
        }
    }
    if (R == 4 && T == 4) {
        vec all = totals(sum);
        for (int t = 0; t < T; t++) memcpy(out + t * SLOTS, (float *)&all + 4 * t, 4 * sizeof(float));
        return;
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) out[t * SLOTS + r] = total(sum[4 * t + r]);
}

// `outputs` rows of W from `row` by `count` rows of x, at most SLOTS of either: sums [token], a vector of outputs each.
static inline __attribute__((always_inline)) void vectors(const int kind, const void *w, whole row, whole outputs,
                                                          const float *x, whole count, whole D, vec *sums) {
    for (whole r = 0, many; r < outputs; r += many) {
        many = outputs - r < 4 ? 1 : 4;
        float *out = (float *)sums + r;
        for (whole t = 0, some; t < count; t += some) {
            some = count - t >= 4 ? 4 : many == 4 && count - t >= 2 ? 2 : 1;
            if (many == 4 && some == 4) part(kind, 4, 4, w, row + r, x + t * D, D, out + t * SLOTS);
            else if (many == 4 && some == 2) part(kind, 4, 2, w, row + r, x + t * D, D, out + t * SLOTS);
            else if (many == 4) part(kind, 4, 1, w, row + r, x + t * D, D, out + t * SLOTS);
            else if (some == 4) part(kind, 1, 4, w, row + r, x + t * D, D, out + t * SLOTS);
            else part(kind, 1, 1, w, row + r, x + t * D, D, out + t * SLOTS);
        }
    }
}

// --- either ------------------------------------------------------------------------------------------------------------

// x [count][in] as products with m read it. All threads copy to `room`, up_to(count, SLOTS) * SLOTS * in floats, and do
// not wait.
static input laid_out(const elem *x, whole count, const matrix *m, whole columns, void *room) {
    whole D = m->in, groups = up_to(count, SLOTS), half = groups * D * columns;
    int tiled = !m->scales && by_tiles(D), lies = tiled ? columns == 1 : sizeof(elem) == sizeof(float);
    if (by_codes(m)) {
        int8_t *high = room;
        float *scales = (float *)(high + 2 * half);
#pragma omp for nowait
        for (whole group = 0; group < groups; group++)
            if (columns == 1) code_one(x, D, scales, room);
            else code_up(x + group * SLOTS * D, D, least(SLOTS, count - group * SLOTS), scales + group * SLOTS,
                         high + group * D * SLOTS, high + half + group * D * SLOTS);
        return (input){room, count, columns, 1, high + half, scales};
    }
    if (lies) return (input){x, count, columns, 0, NULL, NULL};
    if (tiled)
#pragma omp for collapse(2) nowait
        for (whole group = 0; group < groups; group++)
            for (whole k = 0; k < D; k += STEP)
                pair_up(x + group * SLOTS * D + k, D, least(SLOTS, count - group * SLOTS),
                        (elem *)room + (group * D + k) * SLOTS);
    else
#pragma omp for nowait
        for (whole n = 0; n < count; n++)
            for (whole d = 0; d < D; d++) ((float *)room)[n * D + d] = load(x[n * D + d]);
    return (input){room, count, columns, 1, NULL, NULL};
}

// Wait until it is copied.
static void wait_for(const input *x) {
    if (x->copied) {
#pragma omp barrier
    }
}

// Blocks first[r] of m[r], R at most 2, by groups of tokens from `group`, T at most 2: sums [r][t][token].
static void sum_blocks(whole R, whole T, const matrix *const *m, const whole *first, const input *x, whole group,
                       vec (*sums)[2][SLOTS]) {
    whole D = m[0]->in;
    int tiled = !m[0]->scales && by_tiles(D);
    if (by_codes(m[0]) && x->columns == 1)
        for (whole r = 0; r < R; r++) code_rows(m[r], first[r], x, sums[r][0]);
    else if (by_codes(m[0]))
        for (whole t = 0; t < T; t++)
            if (R == 2) code_tiles(2, m, first, x, group + t, sums, t);
            else code_tiles(1, m, first, x, group + t, sums, t);
    else if (tiled && R == 2 && T == 2) tiles(2, 2, m, first, x, group, sums);
    else if (tiled && R == 2) tiles(2, 1, m, first, x, group, sums);
    else if (tiled && T == 2) tiles(1, 2, m, first, x, group, sums);
    else if (tiled) tiles(1, 1, m, first, x, group, sums);
    else for (whole r = 0; r < R; r++)
        for (whole t = 0; t < T; t++) {
            whole n = (group + t) * SLOTS, count = least(SLOTS, x->count - n), outputs = least(SLOTS, m[r]->out - first[r]);
            const float *from = (const float *)x->x + n * D;
            if (m[r]->scales) vectors(CODES, m[r]->weight, first[r], outputs, from, count, D, sums[r][t]);
            else vectors(HELD, m[r]->weight, first[r], outputs, from, count, D, sums[r][t]);
        }
}

// What a sum becomes: scaled, with its bias.
static inline vec finished(const matrix *m, whole first, vec sum) {
    vec scale = all(1.0f), bias = {0};
    whole count = least(SLOTS, m->out - first);
    if (m->scales) memcpy(&scale, m->scales + first, count * sizeof(float));
    if (m->bias) for (whole i = 0; i < count; i++) bias[i] = load(m->bias[first + i]);
    return m->scales || m->bias ? sum * scale + bias : sum;
}

enum { ELEMENTS, FLOATS, ADDED };
typedef struct { int kind; void *y; whole stride; } target;  // where rows of y go: as elements, float, or added to float

static inline void put(target to, whole n, whole first, whole count, vec x) {
    if (to.kind == ELEMENTS) {
        elem narrow[SLOTS], *y = (elem *)to.y + n * to.stride + first;
        if (count == SLOTS) return store_vec(y, x);
        store_vec(narrow, x);
        memcpy(y, narrow, count * sizeof(elem));
        return;
    }
    float *y = (float *)to.y + n * to.stride + first;
    vec before = {0};
    if (to.kind == ADDED) memcpy(&before, y, count * sizeof(float));
    x += before;
    memcpy(y, &x, count * sizeof(float));
}

// Blocks `first` to `last` of x W^T.
static void product(const matrix *m, whole first, whole last, const input *x, target to) {
    whole groups = up_to(x->count, SLOTS);
    for (whole b = first; b < last; b += 2)
        for (whole g = 0; g < groups; g += 2) {
            vec sums[2][2][SLOTS];
            const matrix *both[2] = {m, m};
            whole R = least(2, last - b), T = least(2, groups - g), at[2] = {b * SLOTS, (b + 1) * SLOTS};
            sum_blocks(R, T, both, at, x, g, sums);
            for (whole r = 0; r < R; r++)
                for (whole n = g * SLOTS; n < least(x->count, (g + T) * SLOTS); n++)
                    put(to, n, at[r], least(SLOTS, m->out - at[r]),
                        finished(m, at[r], sums[r][n / SLOTS - g][n % SLOTS]));
        }
}

// Blocks `first` to `last` of silu(x gate^T) * x up^T.
static void gated(const matrix *gate, const matrix *up, whole first, whole last, const input *x, target to) {
    whole groups = up_to(x->count, SLOTS);
    const matrix *both[2] = {gate, up};
    for (whole b = first; b < last; b++)
        for (whole g = 0; g < groups; g += 2) {
            vec sums[2][2][SLOTS];
            whole T = least(2, groups - g), o = b * SLOTS, at[2] = {o, o};
            sum_blocks(2, T, both, at, x, g, sums);
            for (whole n = g * SLOTS; n < least(x->count, (g + T) * SLOTS); n++) {
                vec a = finished(gate, o, sums[0][n / SLOTS - g][n % SLOTS]);
                vec c = finished(up, o, sums[1][n / SLOTS - g][n % SLOTS]);
                put(to, n, o, least(SLOTS, gate->out - o), silu(a) * c);
            }
        }
}

// This thread's part of x W^T, and of silu(x gate^T) * x up^T. No barrier at the end.
static void shared_product(const matrix *m, const input *x, target to) {
    whole first, last;
    share(up_to(m->out, SLOTS), &first, &last);
    product(m, first, last, x, to);
}

static void shared_gated(const matrix *gate, const matrix *up, const input *x, target to) {
    whole first, last;
    share(up_to(gate->out, SLOTS), &first, &last);
    gated(gate, up, first, last, x, to);
}
