// Products of few rows: y [N, O] = x [N, D] W [O, D]^T. W is read where it lies, SLOTS outputs at a time, each by one
// thread; sums are float. How a sum is ordered depends on D alone: neither the other rows nor the threads change a bit.
//
// In bfloat16, where the CPU multiplies tiles (AMX) and D is a multiple of STEP, a tile of W is 16 outputs by 32 channels
// as it lies, and x is laid out beside it in pairs of channels. Elsewhere x is float, and vectors run along D.

#pragma once

#include <omp.h>

#include "numbers.h"

#define STEP 32          // channels of a tile
#define AHEAD 2048       // bytes of codes that are fetched before they are read
#define GRAIN (1 << 21)  // multiplications between which threads wait for each other a few times
#define PIECE 1024       // channels that are widened at once, where W is not read as it lies

typedef struct {
    const void *weight;   // [out][in]: elements, or int8 where there are scales
    const elem *bias;     // [out], or none
    const float *scales;  // [out], or none
    whole out, in;
} matrix;

typedef struct {
    const void *x;          // as products read it
    whole count, columns;  // columns: tokens that stand in a tile, 1 or SLOTS
    int copied;
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

// STEP codes as bfloat16, which has room for all their bits.
static inline void widen(const int8_t *codes, elem *to) {
    __builtin_prefetch(codes + AHEAD);
    __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)codes)));
    __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)codes + 1)));
    __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    memcpy(to, &both, sizeof both);
}

// Rows of a matrix from `first`, channels from k: elements, as they lie or copied to `room` [SLOTS][count]. What lies
// beyond the last row is 0.
static inline const elem *piece(const matrix *m, whole first, whole k, whole count, elem *room) {
    if (!m->scales && first + SLOTS <= m->out) return (const elem *)m->weight + first * m->in + k;
    for (whole r = 0; r < SLOTS; r++) {
        whole from = (first + r) * m->in + k;
        elem *to = room + r * count;
        if (first + r >= m->out) memset(to, 0, count * sizeof(elem));
        else if (m->scales)
            for (whole i = 0; i < count; i += STEP) widen((const int8_t *)m->weight + from + i, to + i);
        else memcpy(to, (const elem *)m->weight + from, count * sizeof(elem));
    }
    return room;
}

static inline int lies(const matrix *m, whole first) { return !m->scales && first + SLOTS <= m->out; }

// Tiles 0 to 3 are sums, 4 and 5 parts of W, 6 and 7 tokens. Each thread has its own.
static void open_tiles(whole columns) {
    struct { uint8_t palette, start, none[14]; uint16_t bytes[16]; uint8_t rows[16]; } told = {.palette = 1};
    for (int i = 0; i < 8; i++) told.rows[i] = 16, told.bytes[i] = i == 4 || i == 5 ? 64 : 4 * columns;
    if (granted) _tile_loadconfig(&told);
}
static void close_tiles(void) { if (granted) _tile_release(); }

// R blocks of outputs by T groups of tokens, over `count` channels.
static inline __attribute__((always_inline)) void multiply(const int R, const int T, const elem *const *w, const whole *stride,
                                                           const elem *const *x, whole columns, whole count) {
    whole step = STEP * columns, beside = 4 * columns;
    for (whole k = 0; k < count; k += STEP) {
        whole at = k / STEP * step;
        _tile_loadd(4, w[0] + k, stride[0]);
        _tile_loadd(6, x[0] + at, beside);
        _tile_dpbf16ps(0, 4, 6);
        if (T > 1) _tile_loadd(7, x[1] + at, beside);
        if (T > 1) _tile_dpbf16ps(1, 4, 7);
        if (R > 1) _tile_loadd(5, w[1] + k, stride[1]);
        if (R > 1) _tile_dpbf16ps(2, 5, 6);
        if (R > 1 && T > 1) _tile_dpbf16ps(3, 5, 7);
    }
}

static inline __attribute__((always_inline)) void tiles(const int R, const int T, const matrix *const *m, const whole *first,
                                                        const input *x, whole group, vec (*sums)[2][SLOTS]) {
    elem room[2][SLOTS * PIECE];
    whole D = m[0]->in, most = D;
    for (int r = 0; r < R; r++) most = lies(m[r], first[r]) ? most : PIECE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (whole k = 0; k < D; k += most) {
        whole count = least(most, D - k), stride[2];
        const elem *w[2], *from[2];
        for (int r = 0; r < R; r++) {
            w[r] = piece(m[r], first[r], k, count, room[r]);
            stride[r] = 2 * (lies(m[r], first[r]) ? D : count);
        }
        for (int t = 0; t < T; t++) from[t] = (const elem *)x->x + ((group + t) * D + k) * x->columns;
        multiply(R, T, w, stride, from, x->columns, count);
    }
    whole beside = 4 * x->columns;
    _tile_stored(0, sums[0][0], beside);
    if (T > 1) _tile_stored(1, sums[0][1], beside);
    if (R > 1) _tile_stored(2, sums[1][0], beside);
    if (R > 1 && T > 1) _tile_stored(3, sums[1][1], beside);
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++)
            if (x->columns > 1) turn(sums[r][t]);
}

// Tokens of a group, STEP channels of each, in pairs: to [pair][token].
static void pair_up(const elem *x, whole stride, whole count, elem *to) {
    vec words[SLOTS] = {0};
    for (whole t = 0; t < count; t++) memcpy(&words[t], x + t * stride, sizeof(vec));
    turn(words);
    memcpy(to, words, sizeof words);
}
#else
static inline int by_tiles(whole D) { return 0 * D; }
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

// x [count][D] as products read it. All threads copy to `room`, up_to(count, SLOTS) * SLOTS * D floats, and do not wait.
static input laid_out(const elem *x, whole count, whole D, whole columns, void *room) {
    int tiled = by_tiles(D), lies = tiled ? columns == 1 : sizeof(elem) == sizeof(float);
    if (lies) return (input){x, count, columns, 0};
    if (tiled)
#pragma omp for collapse(2) nowait
        for (whole group = 0; group < up_to(count, SLOTS); group++)
            for (whole k = 0; k < D; k += STEP)
                pair_up(x + group * SLOTS * D + k, D, least(SLOTS, count - group * SLOTS),
                        (elem *)room + (group * D + k) * SLOTS);
    else
#pragma omp for nowait
        for (whole n = 0; n < count; n++)
            for (whole d = 0; d < D; d++) ((float *)room)[n * D + d] = load(x[n * D + d]);
    return (input){room, count, columns, 1};
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
    if (by_tiles(D) && R == 2 && T == 2) tiles(2, 2, m, first, x, group, sums);
    else if (by_tiles(D) && R == 2) tiles(2, 1, m, first, x, group, sums);
    else if (by_tiles(D) && T == 2) tiles(1, 2, m, first, x, group, sums);
    else if (by_tiles(D)) tiles(1, 1, m, first, x, group, sums);
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
