// What a decode step does between its matrix products, over a paged cache. Built twice by kernels.py: elements are
// float, or bfloat16 (-DBFLOAT16); sums are float either way. One thread a row or a head, so that the number of
// threads changes no bit. A page holds SLOTS tokens of one layer; keys stand transposed in it ([K][SLOTS]), so that the
// scores of a page are one vector and no sum runs across it.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 16
#define TILE 8  // queries that read a page's keys together

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

// x [N, D] float gets y added (y may be none); out = x / rms(x) * weight.
void add_norm(float *x, const elem *y, const elem *weight, float eps, elem *out, whole rows, whole width, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (whole n = 0; n < rows; n++) {
        float *restrict a = x + n * width, sum = 0;
        if (y) for (whole d = 0; d < width; d++) a[d] += load(y[n * width + d]);
        for (whole d = 0; d < width; d++) sum += a[d] * a[d];
        float scale = 1.0f / sqrtf(sum / width + eps);
        for (whole d = 0; d < width; d++) out[n * width + d] = store(a[d] * scale * load(weight[d]));
    }
}

// out [N, F] = silu(gate) * up, each row of either `stride` after the one before.
void swiglu(const elem *gate, const elem *up, whole stride, elem *out, whole rows, whole width, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (whole n = 0; n < rows; n++)
        for (whole f = 0; f < width; f += SLOTS) {
            whole count = width - f < SLOTS ? width - f : SLOTS;
            vec g = {0};
            for (whole i = 0; i < count; i++) g[i] = load(gate[n * stride + f + i]);
            g /= 1.0f + exponential(-g);
            for (whole i = 0; i < count; i++) out[n * width + f + i] = store(g[i] * load(up[n * stride + f + i]));
        }
}

// --- rotary positions --------------------------------------------------------------------------------------------------

// x [K] float, its last 2 R channels turned by R pairs (cos, sin): neighbours, or halves apart (layers.py).
static inline void rotate(float *x, const float *rotary, whole pairs, int interleaved) {
    for (whole j = 0; j < pairs; j++) {
        float *a = interleaved ? x + 2 * j : x + j, *b = interleaved ? a + 1 : x + pairs + j;
        float c = rotary[2 * j], s = rotary[2 * j + 1], first = *a, second = *b;
        *a = first * c - second * s;
        *b = second * c + first * s;
    }
}

static inline void norm(float *x, const elem *weight, whole width, float eps) {
    float sum = 0;
    for (whole k = 0; k < width; k++) sum += x[k] * x[k];
    float scale = 1.0f / sqrtf(sum / width + eps);
    for (whole k = 0; k < width; k++) x[k] *= scale * load(weight[k]);
}

// --- grouped-query attention -------------------------------------------------------------------------------------------

typedef struct {
    whole tokens, heads, kv_heads, width, window;  // window 0: every earlier token is seen
    whole table_stride;                            // pages a row's table has room for
    float scale, eps;
    int interleaved, threads;
} shape;

// Heads are normed (where weights are given) and turned; queries scaled; keys and values written to their places.
void write_gqa(const shape *c, const elem *q, const elem *k, const elem *v, const elem *q_norm, const elem *k_norm,
               const float *rotary, const whole *positions, const whole *places, float *queries, elem *keys,
               elem *values) {
    whole K = c->width, H = c->heads, J = c->kv_heads;
#pragma omp parallel for num_threads(c->threads) if (c->threads > 1)
    for (whole n = 0; n < c->tokens; n++) {
        const float *turn = rotary + positions[n] * K;
        for (whole h = 0; h < H; h++) {
            float *x = queries + (n * H + h) * K;
            for (whole i = 0; i < K; i++) x[i] = load(q[(n * H + h) * K + i]);
            if (q_norm) norm(x, q_norm, K, c->eps);
            rotate(x, turn, K / 2, c->interleaved);
            for (whole i = 0; i < K; i++) x[i] *= c->scale;
        }
        whole page = places[n] / SLOTS, slot = places[n] % SLOTS;
        float x[K];
        for (whole j = 0; j < J; j++) {
            for (whole i = 0; i < K; i++) x[i] = load(k[(n * J + j) * K + i]);
            if (k_norm) norm(x, k_norm, K, c->eps);
            rotate(x, turn, K / 2, c->interleaved);
            elem *key = keys + (page * J + j) * K * SLOTS + slot, *value = values + ((page * J + j) * SLOTS + slot) * K;
            for (whole i = 0; i < K; i++) key[i * SLOTS] = store(x[i]);
            memcpy(value, v + (n * J + j) * K, K * sizeof(elem));
        }
    }
}

// Scores of `count` queries [count][K] against one page of transposed keys, in `ways` sums that need not wait for each
// other.
#define SCORES(count, ways)                                                                             \
    static void scores_##count(const float *restrict q, const elem *restrict keys, whole K,            \
                               float *restrict out, whole stride) {                                    \
        vec sum[count][ways] = {0};                                                                     \
        whole i = 0;                                                                                    \
        for (; i + ways <= K; i += ways)                                                                \
            for (int w = 0; w < ways; w++) {                                                            \
                vec key = load_vec(keys + (i + w) * SLOTS);                                             \
                for (int a = 0; a < count; a++) sum[a][w] += q[a * K + i + w] * key;                    \
            }                                                                                           \
        for (; i < K; i++)                                                                              \
            for (int a = 0; a < count; a++) sum[a][0] += q[a * K + i] * load_vec(keys + i * SLOTS);     \
        for (int a = 0; a < count; a++) {                                                               \
            for (int w = 1; w < ways; w++) sum[a][0] += sum[a][w];                                      \
            memcpy(out + a * stride, &sum[a][0], sizeof(vec));                                          \
        }                                                                                               \
    }
SCORES(1, 8) SCORES(2, 4) SCORES(4, 2) SCORES(8, 1)

static void scores(const float *q, const elem *keys, whole K, float *out, whole stride, whole count) {
    whole a = 0;
    for (; a + 8 <= count; a += 8) scores_8(q + a * K, keys, K, out + a * stride, stride);
    for (; a + 4 <= count; a += 4) scores_4(q + a * K, keys, K, out + a * stride, stride);
    for (; a + 2 <= count; a += 2) scores_2(q + a * K, keys, K, out + a * stride, stride);
    for (; a < count; a++) scores_1(q + a * K, keys, K, out + a * stride, stride);
}

// sum [K] += the first `written` rows of a page [SLOTS][stride], each times its share.
static inline void gather(float *restrict sum, const float *restrict share, const elem *restrict page, whole K,
                          whole stride, whole written) {
    whole i = 0;
    for (; i + 2 * SLOTS <= K; i += 2 * SLOTS) {
        vec a[4] = {0};
        whole slot = 0;
        for (; slot + 2 <= written; slot += 2)
            for (int w = 0; w < 4; w++) a[w] += share[slot + w / 2] * load_vec(page + (slot + w / 2) * stride + i + w % 2 * SLOTS);
        for (; slot < written; slot++)
            for (int w = 0; w < 2; w++) a[w] += share[slot] * load_vec(page + slot * stride + i + w * SLOTS);
        for (int w = 0; w < 2; w++) {
            vec before;
            memcpy(&before, sum + i + w * SLOTS, sizeof before);
            before += a[w] + a[w + 2];
            memcpy(sum + i + w * SLOTS, &before, sizeof before);
        }
    }
    for (; i < K; i++)
        for (whole slot = 0; slot < written; slot++) sum[i] += share[slot] * load(page[slot * stride + i]);
}

// s [end] becomes its softmax over [first, last]; what lies outside becomes 0. `end` is a multiple of SLOTS.
static void soften(float *s, whole first, whole last, whole end) {
    whole begin = first / SLOTS * SLOTS;
    memset(s, 0, begin * sizeof(float));
    for (whole t = begin; t < first; t++) s[t] = -INFINITY;
    for (whole t = last + 1; t < end; t++) s[t] = -INFINITY;
    vec x, most = all(-INFINITY), sum = {0};
    for (whole t = begin; t < end; t += SLOTS) {
        memcpy(&x, s + t, sizeof x);
        most = pick(x > most, x, most);
    }
    float top = most[0], total = 0;
    for (int i = 1; i < SLOTS; i++) top = most[i] > top ? most[i] : top;
    for (whole t = begin; t < end; t += SLOTS) {
        memcpy(&x, s + t, sizeof x);
        x = exponential(x - top);
        sum += x;
        memcpy(s + t, &x, sizeof x);
    }
    for (int i = 0; i < SLOTS; i++) total += sum[i];
    for (whole t = begin; t < end; t++) s[t] /= total;
}

static inline void fetch(const void *from, whole bytes) {
    for (whole at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)from + at);
}

// out [N, H, K]: each token looks at its row's entries up to its own position. `starts` [rows + 1]: tokens of a row
// stand together, in order. Queries of one key-value head, of neighbouring tokens, share what is read. Few rows are
// split by heads; else a page's heads are read one after the other, as they lie.
void attend_gqa(const shape *c, const float *queries, const elem *keys, const elem *values, const whole *positions,
                const whole *starts, whole rows, const whole *tables, elem *out) {
    whole K = c->width, H = c->heads, J = c->kv_heads, G = H / J, at_once = G >= TILE ? 1 : TILE / G;
    whole parts = rows < 2 * c->threads ? J : 1, M = J / parts, size = K * SLOTS;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(c->threads) if (c->threads > 1)
    for (whole r = 0; r < rows; r++)
        for (whole part = 0; part < parts; part++) {
            const whole *table = tables + r * c->table_stride;
            whole most = (positions[starts[r + 1] - 1] / SLOTS + 1) * SLOTS, first_head = part * M;
            whole new = starts[r + 1] - starts[r], room = (new < at_once ? new : at_once) * G;
            float *s = malloc(sizeof(float) * (most + 2 * K) * room * M), *q = s + most * room * M;
            float *sums = q + K * room * M;
            for (whole n = starts[r]; n < starts[r + 1]; n += at_once) {
                whole tokens = starts[r + 1] - n < at_once ? starts[r + 1] - n : at_once, count = tokens * G;
                whole last = positions[n + tokens - 1], pages = last / SLOTS + 1, end = pages * SLOTS;
                whole seen = c->window && positions[n] >= c->window ? positions[n] - c->window + 1 : 0;
                for (whole j = 0; j < M; j++)
                    for (whole a = 0; a < count; a++)
                        memcpy(q + (j * count + a) * K, queries + ((n + a / G) * H + (first_head + j) * G + a % G) * K,
                               K * sizeof(float));
                for (whole p = seen / SLOTS; p < pages; p++)
                    for (whole j = 0; j < M; j++) {
                        const elem *page = keys + (table[p] * J + first_head + j) * size;
                        if (p + 1 < pages) fetch(keys + (table[p + 1] * J + first_head + j) * size, size * sizeof(elem));
                        scores(q + j * count * K, page, K, s + j * count * end + p * SLOTS, end, count);
                    }
                for (whole j = 0; j < M; j++)
                    for (whole a = 0; a < count; a++) {
                        whole own = positions[n + a / G];
                        soften(s + (j * count + a) * end, c->window && own >= c->window ? own - c->window + 1 : 0, own, end);
                    }
                memset(sums, 0, sizeof(float) * M * count * K);
                for (whole p = seen / SLOTS; p < pages; p++) {
                    whole written = last + 1 - p * SLOTS < SLOTS ? last + 1 - p * SLOTS : SLOTS;
                    for (whole j = 0; j < M; j++) {
                        const elem *page = values + (table[p] * J + first_head + j) * size;
                        if (p + 1 < pages) fetch(values + (table[p + 1] * J + first_head + j) * size, size * sizeof(elem));
                        for (whole a = 0; a < count; a++)
                            gather(sums + (j * count + a) * K, s + (j * count + a) * end + p * SLOTS, page, K, K, written);
                    }
                }
                for (whole j = 0; j < M; j++)
                    for (whole a = 0; a < count; a++)
                        for (whole i = 0; i < K; i++)
                            out[((n + a / G) * H + (first_head + j) * G + a % G) * K + i] = store(sums[(j * count + a) * K + i]);
            }
            free(s);
        }
}

// --- multi-head latent attention, absorbed -----------------------------------------------------------------------------

// The latent [C] is normed, the key's rotary part [R] turned, both written to their place in a page [SLOTS][C + R];
// the rotary part of each query [H][nope + R] is turned in place. `width` is C + R, `kv_heads` stands for R.
void write_mla(const shape *c, elem *q, whole q_width, const elem *entry, const elem *norm_weight, const float *rotary,
               const whole *positions, const whole *places, elem *latents) {
    whole W = c->width, R = c->kv_heads, C = W - R;
#pragma omp parallel for num_threads(c->threads) if (c->threads > 1)
    for (whole n = 0; n < c->tokens; n++) {
        const float *turn = rotary + positions[n] * R;
        float x[W];
        for (whole h = 0; h < c->heads; h++) {
            elem *own = q + (n * c->heads + h) * q_width + q_width - R;
            for (whole i = 0; i < R; i++) x[i] = load(own[i]);
            rotate(x, turn, R / 2, c->interleaved);
            for (whole i = 0; i < R; i++) own[i] = store(x[i]);
        }
        for (whole i = 0; i < W; i++) x[i] = load(entry[n * W + i]);
        norm(x, norm_weight, C, c->eps);
        rotate(x + C, turn, R / 2, c->interleaved);
        for (whole i = 0; i < W; i++) latents[places[n] * W + i] = store(x[i]);
    }
}

// out [H, N, C]: absorbed queries [H, N, C] and rotary ones (the last R of q [N, H, q_width]) against the latents of
// each token's row. All heads read the same page, turned once into [W][SLOTS].
void attend_mla(const shape *c, const elem *absorbed, const elem *q, whole q_width, const elem *latents,
                const whole *positions, const whole *rows, const whole *tables, elem *out) {
    whole W = c->width, R = c->kv_heads, C = W - R, H = c->heads, N = c->tokens;
#pragma omp parallel for schedule(dynamic) num_threads(c->threads) if (c->threads > 1)
    for (whole n = 0; n < N; n++) {
        const whole *table = tables + rows[n] * c->table_stride;
        whole own = positions[n], pages = own / SLOTS + 1, end = pages * SLOTS;
        whole first = c->window && own >= c->window ? own - c->window + 1 : 0;
        float *s = malloc(sizeof(float) * H * (end + W + C)), *asked = s + H * end, *sums = asked + H * W;
        for (whole h = 0; h < H; h++) {
            for (whole i = 0; i < C; i++) asked[h * W + i] = c->scale * load(absorbed[(h * N + n) * C + i]);
            for (whole i = 0; i < R; i++)
                asked[h * W + C + i] = c->scale * load(q[(n * H + h) * q_width + q_width - R + i]);
        }
        elem turned[W * SLOTS];
        for (whole p = first / SLOTS; p < pages; p++) {
            const elem *restrict latent = latents + table[p] * SLOTS * W;
            for (whole slot = 0; slot < SLOTS; slot++)
                for (whole i = 0; i < W; i++) turned[i * SLOTS + slot] = latent[slot * W + i];
            scores(asked, turned, W, s + p * SLOTS, end, H);
        }
        for (whole h = 0; h < H; h++) soften(s + h * end, first, own, end);
        memset(sums, 0, sizeof(float) * H * C);
        for (whole p = first / SLOTS; p < pages; p++) {
            const elem *restrict latent = latents + table[p] * SLOTS * W;
            whole written = own + 1 - p * SLOTS < SLOTS ? own + 1 - p * SLOTS : SLOTS;
            for (whole h = 0; h < H; h++) gather(sums + h * C, s + h * end + p * SLOTS, latent, C, W, written);
        }
        for (whole h = 0; h < H; h++)
            for (whole i = 0; i < C; i++) out[(h * N + n) * C + i] = store(sums[h * C + i]);
        free(s);
    }
}

// --- experts -----------------------------------------------------------------------------------------------------------

// The `best` of E affinities (plus bias, where there is one), the likeliest first, and what they weigh (moe.py). Of
// several groups of experts only the `groups_kept` best are open.
void choose(const float *affinity, const float *bias, whole N, whole E, whole best, whole groups, whole groups_kept,
            int normalise, float scale, whole *chosen, float *weights, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (whole n = 0; n < N; n++) {
        const float *own = affinity + n * E;
        float open[E], of_group[groups];
        whole size = E / groups;
        for (whole e = 0; e < E; e++) open[e] = own[e] + (bias ? bias[e] : 0.0f);
        for (whole g = 0; g < groups; g++) {
            float first = -INFINITY, second = -INFINITY;
            for (whole e = g * size; e < (g + 1) * size; e++) {
                if (open[e] > first) second = first, first = open[e];
                else if (open[e] > second) second = open[e];
            }
            of_group[g] = bias && size > 1 ? first + second : first;
        }
        for (whole closed = groups_kept; closed < groups; closed++) {
            whole worst = 0;
            for (whole g = 1; g < groups; g++) worst = of_group[g] < of_group[worst] ? g : worst;
            of_group[worst] = INFINITY;
            for (whole e = worst * size; e < (worst + 1) * size; e++) open[e] = -INFINITY;
        }
        float sum = 1e-20f;
        for (whole a = 0; a < best; a++) {
            whole top = 0;
            for (whole e = 1; e < E; e++) top = open[e] > open[top] ? e : top;
            chosen[n * best + a] = top;
            weights[n * best + a] = own[top];
            sum += own[top];
            open[top] = -INFINITY;
        }
        for (whole a = 0; a < best; a++) weights[n * best + a] = weights[n * best + a] / (normalise ? sum : 1.0f) * scale;
    }
}

typedef float half __attribute__((vector_size(2 * SLOTS)));
typedef float quarter __attribute__((vector_size(SLOTS)));

static inline float total(vec x) {
    union { vec all; half halves[2]; } whole_ = {x};
    union { half all; quarter quarters[2]; } half_ = {whole_.halves[0] + whole_.halves[1]};
    quarter four = half_.quarters[0] + half_.quarters[1];
    return (four[0] + four[1]) + (four[2] + four[3]);
}

// A tile of x W^T: `R` rows of W [.][K] by `T` rows of x [.][K], summed over K in vectors.
static inline __attribute__((always_inline)) void tile(const int R, const int T, const elem *restrict w,
                                                       const float *restrict x, whole K, float *restrict out, whole stride) {
    vec sum[4][4] = {0};
    whole k = 0;
    for (; k + SLOTS <= K; k += SLOTS) {
        vec from[4];
        for (int t = 0; t < T; t++) memcpy(&from[t], x + t * K + k, sizeof(vec));
        for (int r = 0; r < R; r++) {
            vec weight = load_vec(w + r * K + k);
            for (int t = 0; t < T; t++) sum[r][t] += weight * from[t];
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) {
            float one = total(sum[r][t]);
            for (whole rest = k; rest < K; rest++) one += load(w[r * K + rest]) * x[t * K + rest];
            out[t * stride + r] = one;
        }
}

// out [N][O] = x [N][K] W [O][K]^T.
static void product(const elem *w, whole O, whole K, const float *x, whole N, float *out) {
    for (whole o = 0; o < O; o += O - o < 4 ? 1 : 4) {
        const elem *rows = w + o * K;
        int whole_tile = O - o >= 4;
        for (whole n = 0; n < N;) {
            const float *from = x + n * K;
            float *to = out + n * O + o;
            whole left = N - n;
            if (whole_tile && left >= 4) tile(4, 4, rows, from, K, to, O), n += 4;
            else if (whole_tile && left >= 2) tile(4, 2, rows, from, K, to, O), n += 2;
            else if (whole_tile) tile(4, 1, rows, from, K, to, O), n += 1;
            else if (left >= 4) tile(1, 4, rows, from, K, to, O), n += 4;
            else tile(1, 1, rows, from, K, to, O), n += 1;
        }
    }
}

// out [N, D]: each token through its A experts, gate_up [E][2 F][D] and down [E][D][F], weighed and summed in order.
void experts(const elem *x, const whole *chosen, const float *weights, const elem *gate_up, const elem *down, elem *out,
             whole N, whole A, whole E, whole D, whole F, int threads) {
    whole starts[E + 1];
    whole *order = malloc(sizeof(whole) * N * A);
    float *answers = malloc(sizeof(float) * N * A * D);
    memset(starts, 0, sizeof starts);
    for (whole m = 0; m < N * A; m++) starts[chosen[m] + 1]++;
    for (whole e = 0; e < E; e++) starts[e + 1] += starts[e];
    whole next[E];
    memcpy(next, starts, sizeof next);
    for (whole m = 0; m < N * A; m++) order[next[chosen[m]]++] = m;
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (whole e = 0; e < E; e++) {
        whole count = starts[e + 1] - starts[e];
        if (!count) continue;
        float *own = malloc(sizeof(float) * count * (2 * D + 3 * F));
        float *both = own + count * D, *gated = both + count * 2 * F, *back = gated + count * F;
        for (whole i = 0; i < count; i++)
            for (whole d = 0; d < D; d++) own[i * D + d] = load(x[order[starts[e] + i] / A * D + d]);
        product(gate_up + e * 2 * F * D, 2 * F, D, own, count, both);
        for (whole i = 0; i < count; i++)
            for (whole f = 0; f < F; f += SLOTS) {
                whole some = F - f < SLOTS ? F - f : SLOTS;
                vec gate = {0}, up = {0};
                memcpy(&gate, both + i * 2 * F + f, some * sizeof(float));
                memcpy(&up, both + i * 2 * F + F + f, some * sizeof(float));
                gate = gate / (1.0f + exponential(-gate)) * up;
                memcpy(gated + i * F + f, &gate, some * sizeof(float));
            }
        product(down + e * D * F, D, F, gated, count, back);
        for (whole i = 0; i < count; i++)
            memcpy(answers + order[starts[e] + i] * D, back + i * D, D * sizeof(float));
        free(own);
    }
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (whole n = 0; n < N; n++) {
        float sum[D];
        memset(sum, 0, sizeof sum);
        for (whole a = 0; a < A; a++)
            for (whole d = 0; d < D; d++) sum[d] += weights[n * A + a] * answers[(n * A + a) * D + d];
        for (whole d = 0; d < D; d++) out[n * D + d] = store(sum[d]);
    }
    free(order);
    free(answers);
}
