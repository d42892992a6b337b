// What a training pass does between its matrix products, there and back (fused.py says what is computed). A tensor is
// float, or bfloat16 where its `narrow` is not 0; sums are float either way. Threads share rows; what is summed over
// rows is summed over BLOCKs of them, and these in order, so that the number of threads changes no bit.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64   // rows whose sum is one thread's
#define PIECE 512  // numbers that are worked on at a time

typedef int64_t whole;

static inline float widened(uint16_t x) {
    union { uint32_t bits; float value; } u = {(uint32_t)x << 16};
    return u.value;
}

static inline uint16_t rounded(float x) {  // to nearest, ties to even
    union { float value; uint32_t bits; } u = {x};
    return x != x ? 0x7fc0 : (uint16_t)((u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16);
}

static inline void get(float *restrict to, const void *from, whole at, whole count, int narrow) {
    if (narrow)
        for (whole i = 0; i < count; i++) to[i] = widened(((const uint16_t *)from)[at + i]);
    else
        memcpy(to, (const float *)from + at, count * sizeof(float));
}

static inline void put(void *to, whole at, const float *restrict from, whole count, int narrow) {
    if (narrow)
        for (whole i = 0; i < count; i++) ((uint16_t *)to)[at + i] = rounded(from[i]);
    else
        memcpy((float *)to + at, from, count * sizeof(float));
}

// e^x, within 2 units in the last place from -87 to 88. Cephes' polynomial (Moshier), after x = n ln 2 + r.
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = __builtin_rintf(x * 1.44269504f), r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    union { int32_t bits; float value; } two_n = {((int32_t)n + 127) << 23};
    return (p * r * r + r + 1.0f) * two_n.value;
}

// sum [width] = those of `blocks` rows, in order.
static void total(const float *parts, whole blocks, whole width, float *restrict sum) {
    memset(sum, 0, width * sizeof(float));
    for (whole b = 0; b < blocks; b++)
        for (whole d = 0; d < width; d++) sum[d] += parts[b * width + d];
}

static inline whole blocks_of(whole rows) { return (rows + BLOCK - 1) / BLOCK; }

// --- the norm ----------------------------------------------------------------------------------------------------------

static inline float scale_of(const float *x, whole width, float eps) {
    float sum = 0;
    for (whole d = 0; d < width; d++) sum += x[d] * x[d];
    return 1.0f / sqrtf(sum / width + eps);
}

// From the gradient g of what a norm left of x: that of x, and what is added to the weight's (where there is one).
static inline void unnorm(float *restrict g, const float *restrict x, const float *restrict weight, float scale,
                             whole width, float *restrict of_weight) {
    float along = 0;
    if (of_weight)
        for (whole d = 0; d < width; d++) of_weight[d] += g[d] * x[d] * scale;
    for (whole d = 0; d < width; d++) {
        g[d] *= weight[d];
        along += g[d] * x[d];
    }
    along *= scale * scale / width;
    for (whole d = 0; d < width; d++) g[d] = scale * (g[d] - x[d] * along);
}

// out [N, D] = x / rms(x) * weight, each row of x `stride` after the one before. Where y is given it is added to x
// first, and the sum kept.
void norm_there(const void *x, int narrow, whole stride, const void *y, int y_narrow, const float *weight, float eps,
                float *sum, void *out, float *scales, whole rows, whole width, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (whole n = 0; n < rows; n++) {
        float a[width], b[width];
        get(a, x, n * stride, width, narrow);
        if (y) {
            get(b, y, n * width, width, y_narrow);
            for (whole d = 0; d < width; d++) a[d] += b[d];
            memcpy(sum + n * width, a, width * sizeof(float));
        }
        float scale = scales[n] = scale_of(a, width, eps);
        for (whole d = 0; d < width; d++) a[d] *= scale * weight[d];
        put(out, n * width, a, width, narrow);
    }
}

// The way back. `beside` [N, D] is a further gradient of the sum, `of_y` that of y where it is not of_x itself;
// either may be none, as may of_weight.
void norm_back(const void *of_out, const float *beside, const void *x, int narrow, whole stride,
                     const float *weight, const float *scales, void *of_x, uint16_t *of_y, float *of_weight, whole rows,
                     whole width, int threads) {
    whole blocks = blocks_of(rows);
    float *parts = of_weight ? calloc(blocks * width, sizeof(float)) : 0;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (whole b = 0; b < blocks; b++)
        for (whole n = b * BLOCK; n < rows && n < (b + 1) * BLOCK; n++) {
            float g[width], a[width];
            get(g, of_out, n * width, width, narrow);
            get(a, x, n * stride, width, narrow);
            unnorm(g, a, weight, scales[n], width, parts ? parts + b * width : 0);
            if (beside)
                for (whole d = 0; d < width; d++) g[d] += beside[n * width + d];
            put(of_x, n * width, g, width, narrow);
            if (of_y) put(of_y, n * width, g, width, 1);
        }
    if (of_weight) total(parts, blocks, width, of_weight);
    free(parts);
}

// --- the gate ----------------------------------------------------------------------------------------------------------

// out [N, F] = silu(gate) * up, of rows [gate, up].
void gate_there(const void *both, void *out, whole rows, whole width, int narrow, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (whole n = 0; n < rows; n++)
        for (whole f = 0; f < width; f += PIECE) {
            float gate[PIECE], up[PIECE];
            whole count = width - f < PIECE ? width - f : PIECE;
            get(gate, both, n * 2 * width + f, count, narrow);
            get(up, both, n * 2 * width + width + f, count, narrow);
            for (whole i = 0; i < count; i++) gate[i] *= up[i] / (1.0f + exponential(-gate[i]));
            put(out, n * width + f, gate, count, narrow);
        }
}

void gate_back(const void *of_out, const void *both, void *of_both, whole rows, whole width, int narrow, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (whole n = 0; n < rows; n++)
        for (whole f = 0; f < width; f += PIECE) {
            float gate[PIECE], up[PIECE], g[PIECE];
            whole count = width - f < PIECE ? width - f : PIECE;
            get(gate, both, n * 2 * width + f, count, narrow);
            get(up, both, n * 2 * width + width + f, count, narrow);
            get(g, of_out, n * width + f, count, narrow);
            for (whole i = 0; i < count; i++) {
                float share = 1.0f / (1.0f + exponential(-gate[i])), x = gate[i];
                gate[i] = g[i] * up[i] * share * (1.0f + x * (1.0f - share));
                up[i] = g[i] * x * share;
            }
            put(of_both, n * 2 * width + f, gate, count, narrow);
            put(of_both, n * 2 * width + width + f, up, count, narrow);
        }
}

// --- heads -------------------------------------------------------------------------------------------------------------

// x [2 R] turned by R pairs (cos, sin), or back: neighbours, or halves apart (layers.py).
static inline void turn(float *restrict x, const float *restrict rotary, whole pairs, int interleaved, float way) {
    if (interleaved)
        for (whole j = 0; j < pairs; j++) {
            float c = rotary[2 * j], s = way * rotary[2 * j + 1], first = x[2 * j], second = x[2 * j + 1];
            x[2 * j] = first * c - second * s;
            x[2 * j + 1] = second * c + first * s;
        }
    else
        for (whole j = 0; j < pairs; j++) {
            float c = rotary[2 * j], s = way * rotary[2 * j + 1], first = x[j], second = x[pairs + j];
            x[j] = first * c - second * s;
            x[pairs + j] = second * c + first * s;
        }
}

typedef struct {
    whole tokens, heads, kv_heads, width;  // of a query and a key
    whole rotary;                          // channels that are turned, the last of each head's
    whole values, stride;                  // latent attention: width of a value, and of what a rotary key stands in
    float eps;
    int interleaved, narrow, threads;
} shape;

// From rows of queries, keys and values [N, (H + 2 J) K]: queries and keys normed (where weights are given) and
// turned, keys and values repeated for each query head: three of [N, H, K].
void grouped_there(const shape *c, const void *qkv, const float *q_norm, const float *k_norm, const float *rotary,
                   float *q, float *k, float *v) {
    whole K = c->width, H = c->heads, J = c->kv_heads, G = H / J, row = (H + 2 * J) * K;
#pragma omp parallel for num_threads(c->threads) if (c->threads > 1)
    for (whole n = 0; n < c->tokens; n++)
        for (whole h = 0; h < H + 2 * J; h++) {
            const float *weight = h < H ? q_norm : k_norm;
            float x[K];
            get(x, qkv, n * row + h * K, K, c->narrow);
            if (h < H + J && weight) {
                float scale = scale_of(x, K, c->eps);
                for (whole i = 0; i < K; i++) x[i] *= scale * weight[i];
            }
            if (h < H + J) turn(x, rotary + n * K, K / 2, c->interleaved, 1);
            if (h < H) memcpy(q + (n * H + h) * K, x, sizeof x);
            else
                for (whole g = 0; g < G; g++) memcpy((h < H + J ? k : v) + (n * H + (h - H) % J * G + g) * K, x, sizeof x);
        }
}

// The way back; without norms neither qkv nor of_norms [2, K] is looked at.
void grouped_back(const shape *c, const float *of_q, const float *of_k, const float *of_v, const void *qkv,
                  const float *q_norm, const float *k_norm, const float *rotary, void *of_qkv, float *of_norms) {
    whole K = c->width, H = c->heads, J = c->kv_heads, G = H / J, row = (H + 2 * J) * K;
    whole blocks = blocks_of(c->tokens);
    float *parts = q_norm ? calloc(blocks * 2 * K, sizeof(float)) : 0;
#pragma omp parallel for num_threads(c->threads) if (c->threads > 1)
    for (whole b = 0; b < blocks; b++)
        for (whole n = b * BLOCK; n < c->tokens && n < (b + 1) * BLOCK; n++)
            for (whole h = 0; h < H + 2 * J; h++) {
                float g[K], x[K];
                if (h < H) memcpy(g, of_q + (n * H + h) * K, sizeof g);
                else {
                    const float *from = (h < H + J ? of_k : of_v) + (n * H + (h - H) % J * G) * K;
                    memcpy(g, from, sizeof g);
                    for (whole i = K; i < G * K; i++) g[i % K] += from[i];
                }
                if (h < H + J) turn(g, rotary + n * K, K / 2, c->interleaved, -1);
                if (h < H + J && parts) {
                    get(x, qkv, n * row + h * K, K, c->narrow);
                    unnorm(g, x, h < H ? q_norm : k_norm, scale_of(x, K, c->eps), K, parts + (2 * b + (h >= H)) * K);
                }
                put(of_qkv, n * row + h * K, g, K, c->narrow);
            }
    if (parts) total(parts, blocks, 2 * K, of_norms);
    free(parts);
}

// Queries [N, H, K], of which the last R channels are turned; keys from rows [H, K - R keys, V values] and the R
// rotary channels that all heads share, turned; and values: three of [N, H, .].
void latent_there(const shape *c, const void *q_in, const void *kv, const void *shared, const float *rotary, float *q,
                  float *k, float *v) {
    whole K = c->width, H = c->heads, R = c->rotary, own = K - R, V = c->values;
#pragma omp parallel for num_threads(c->threads) if (c->threads > 1)
    for (whole n = 0; n < c->tokens; n++) {
        float key[R];
        get(key, shared, n * c->stride, R, c->narrow);
        turn(key, rotary + n * R, R / 2, c->interleaved, 1);
        for (whole h = 0; h < H; h++) {
            whole at = n * H + h;
            get(q + at * K, q_in, at * K, K, c->narrow);
            turn(q + at * K + own, rotary + n * R, R / 2, c->interleaved, 1);
            get(k + at * K, kv, at * (own + V), own, c->narrow);
            memcpy(k + at * K + own, key, sizeof key);
            get(v + at * V, kv, at * (own + V) + own, V, c->narrow);
        }
    }
}

void latent_back(const shape *c, const float *of_q, const float *of_k, const float *of_v, const float *rotary,
                 void *of_q_in, void *of_kv, void *of_shared) {
    whole K = c->width, H = c->heads, R = c->rotary, own = K - R, V = c->values;
#pragma omp parallel for num_threads(c->threads) if (c->threads > 1)
    for (whole n = 0; n < c->tokens; n++) {
        float key[R], g[K];
        memset(key, 0, sizeof key);
        for (whole h = 0; h < H; h++) {
            whole at = n * H + h;
            memcpy(g, of_q + at * K, sizeof g);
            turn(g + own, rotary + n * R, R / 2, c->interleaved, -1);
            put(of_q_in, at * K, g, K, c->narrow);
            put(of_kv, at * (own + V), of_k + at * K, own, c->narrow);
            put(of_kv, at * (own + V) + own, of_v + at * V, V, c->narrow);
            for (whole i = 0; i < R; i++) key[i] += of_k[at * K + own + i];
        }
        turn(key, rotary + n * R, R / 2, c->interleaved, -1);
        put(of_shared, n * R, key, R, c->narrow);
    }
}

// --- attention ---------------------------------------------------------------------------------------------------------

#define LANE 16  // floats of a vector
#define TILE 16  // queries that are worked on together

typedef float vec __attribute__((vector_size(4 * LANE)));

// A matrix as products read it: its element (i, j) is at[i * down + j * right].
typedef struct {
    const float *at;
    whole down, right;
} matrix;

static inline vec some(const float *from, whole count) {
    vec x = {0};
    if (count == LANE) memcpy(&x, from, sizeof x);
    else if (count == LANE / 2) memcpy(&x, from, sizeof x / 2);
    else memcpy(&x, from, count * sizeof(float));
    return x;
}

static inline __attribute__((always_inline)) void tile(const int rows, const int vecs, matrix a, const float *b, whole b_row,
                                                       float *c, whole c_row, whole depth, whole last, int adds) {
    vec sum[8][2];  // of constant size, so that they are registers
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < vecs; w++) sum[r][w] = (vec){0};
    for (whole k = 0; k < depth; k++) {
        vec x[2];
        for (int w = 0; w < vecs; w++) x[w] = some(b + k * b_row + w * LANE, w == vecs - 1 ? last : LANE);
        for (int r = 0; r < rows; r++)
            for (int w = 0; w < vecs; w++) sum[r][w] += a.at[r * a.down + k * a.right] * x[w];
    }
    for (int r = 0; r < rows; r++)
        for (int w = 0; w < vecs; w++) {
            float *to = c + r * c_row + w * LANE;
            whole count = w == vecs - 1 ? last : LANE;
            if (adds) sum[r][w] += some(to, count);
            memcpy(to, &sum[r][w], count * sizeof(float));
        }
}

// c [rows, width] = (or, if it adds, += ) a [rows, depth] times b [depth, width].
static void product(matrix a, const float *b, whole b_row, float *c, whole c_row, whole rows, whole depth, whole width,
                    int adds) {
    for (whole n = 0; n < width; n += 2 * LANE) {
        whole left = width - n < 2 * LANE ? width - n : 2 * LANE, last = left > LANE ? left - LANE : left, m = 0;
        for (; m < rows;) {
            matrix own = {a.at + m * a.down, a.down, a.right};
            int many = rows - m >= 8 ? 8 : rows - m >= 4 ? 4 : 1, full = last == LANE;
            float *to = c + m * c_row + n;
            if (left > LANE && full && many == 8) tile(8, 2, own, b + n, b_row, to, c_row, depth, LANE, adds);
            else if (left > LANE && full && many == 4) tile(4, 2, own, b + n, b_row, to, c_row, depth, LANE, adds);
            else if (left > LANE && many == 8) tile(8, 2, own, b + n, b_row, to, c_row, depth, last, adds);
            else if (left > LANE && many == 4) tile(4, 2, own, b + n, b_row, to, c_row, depth, last, adds);
            else if (left > LANE) tile(1, 2, own, b + n, b_row, to, c_row, depth, last, adds);
            else if (full && many == 8) tile(8, 1, own, b + n, b_row, to, c_row, depth, LANE, adds);
            else if (many == 8) tile(8, 1, own, b + n, b_row, to, c_row, depth, last, adds);
            else if (many == 4) tile(4, 1, own, b + n, b_row, to, c_row, depth, last, adds);
            else tile(1, 1, own, b + n, b_row, to, c_row, depth, last, adds);
            m += many;
        }
    }
}

typedef int32_t ints __attribute__((vector_size(4 * LANE)));

// Sixteen rows of sixteen become their columns: pairs of rows swap halves, quarters, eighths and neighbours.
static inline __attribute__((always_inline)) void mirrored(vec x[LANE]) {
#define SWAP(by)                                                                                       \
    for (int i = 0; i < LANE; i++)                                                                     \
        if (!(i & by)) {                                                                               \
            ints low, high;                                                                            \
            for (int j = 0; j < LANE; j++) low[j] = j & by ? LANE + j - by : j;                        \
            for (int j = 0; j < LANE; j++) high[j] = j & by ? LANE + j : j + by;                       \
            vec first = __builtin_shuffle(x[i], x[i + by], low);                                       \
            x[i + by] = __builtin_shuffle(x[i], x[i + by], high);                                      \
            x[i] = first;                                                                              \
        }
    SWAP(8) SWAP(4) SWAP(2) SWAP(1)
}

// to [width][room] = from [count, width] transposed, each of its rows `row` after the one before; then zeros.
static void transposed(const float *from, whole row, whole count, whole width, float *to, whole room) {
    for (whole t = 0; t < room; t += LANE)
        for (whole k = 0; k < width; k += LANE) {
            vec x[LANE];
            whole left = width - k < LANE ? width - k : LANE;
            for (whole i = 0; i < LANE; i++) x[i] = t + i < count ? some(from + (t + i) * row + k, left) : (vec){0};
            mirrored(x);
            for (whole i = 0; i < left; i++) memcpy(to + (k + i) * room + t, &x[i], sizeof(vec));
        }
}

typedef struct {
    whole rows, length, heads, width, values;
    float scale;
    int narrow, threads;  // what is said may be narrow; queries, keys and values are not
} sight;

// Sixteen scores x become e^(x times - less); what is not seen, 0.
static inline void weigh(float *restrict x, float times, float less) {
    for (int i = 0; i < LANE; i++) {
        float y = x[i] * times - less;
        x[i] = y < -87.0f ? 0 : exponential(y);
    }
}

// Keys before `low` and from `own` on are not seen.
static inline void hide(float *row, whole low, whole own, whole room) {
    for (whole j = 0; j < low; j++) row[j] = -INFINITY;
    for (whole j = own; j < room; j++) row[j] = -INFINITY;
}

// The largest of [room], a multiple of LANE.
static inline float top_of(const float *row, whole room) {
    vec most = some(row, LANE);
    for (whole j = LANE; j < room; j += LANE) {
        vec x = some(row + j, LANE);
        ints larger = x > most;
        most = (vec)(((ints)x & larger) | ((ints)most & ~larger));
    }
    float top = most[0];
    for (int i = 1; i < LANE; i++) top = most[i] > top ? most[i] : top;
    return top;
}

static inline whole padded(whole count) { return (count + LANE - 1) / LANE * LANE; }

// out [B, T, H, V]: query t looks at keys first[t] to t, first[t] never falling along a row. logs [B, T, H]: of the sum
// of what scores weigh, for the way back.
void attend_there(const sight *c, const float *q, const float *k, const float *v, const int32_t *first, void *out,
                  float *logs) {
    whole T = c->length, H = c->heads, K = c->width, V = c->values, room = padded(T) + LANE;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(c->threads) if (c->threads > 1)
    for (whole b = 0; b < c->rows; b++)
        for (whole h = 0; h < H; h++) {
            float *keys = malloc(sizeof(float) * (room * (K + TILE) + TILE * V)), *s = keys + room * K, *said = s + TILE * room;
            const float *query = q + (b * T * H + h) * K, *value = v + (b * T * H + h) * V;
            const int32_t *begin = first + b * T;
            float *log = logs + b * T * H + h;
            transposed(k + (b * T * H + h) * K, H * K, T, K, keys, room);
            for (whole t = 0; t < T; t += TILE) {
                whole count = T - t < TILE ? T - t : TILE, from = begin[t], end = t + count;
                product((matrix){query + t * H * K, H * K, 1}, keys + from, room, s, room, count, K, padded(end - from), 0);
                for (whole i = 0; i < count; i++) {
                    float sum = 0, *restrict row = s + i * room;
                    whole most = padded(end - from);
                    hide(row, begin[t + i] - from, t + i - from + 1, most);
                    float top = top_of(row, most);
                    for (whole j = 0; j < most; j += LANE) weigh(row + j, c->scale, top * c->scale);
                    for (whole j = 0; j < most; j++) sum += row[j];
                    for (whole j = 0; j < most; j++) row[j] /= sum;
                    log[(t + i) * H] = top * c->scale + logf(sum);
                }
                product((matrix){s, room, 1}, value + from * H * V, H * V, said, V, count, end - from, V, 0);
                for (whole i = 0; i < count; i++)
                    put(out, ((b * T + t + i) * H + h) * V, said + i * V, V, c->narrow);
            }
            free(keys);
        }
}

// The way back, with the shares made again from scores and `logs`.
void attend_back(const sight *c, const void *of_out, const float *q, const float *k, const float *v, const int32_t *first,
                 const float *logs, float *of_q, float *of_k, float *of_v) {
    whole T = c->length, H = c->heads, K = c->width, V = c->values, room = padded(T) + LANE;
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(c->threads) if (c->threads > 1)
    for (whole b = 0; b < c->rows; b++)
        for (whole h = 0; h < H; h++) {
            float *keys = malloc(sizeof(float) * (room * (K + V + 2 * TILE) + TILE * V)), *values = keys + room * K;
            float *p = values + room * V, *g = p + TILE * room, *said = g + TILE * room;
            whole at_k = (b * T * H + h) * K, at_v = (b * T * H + h) * V;
            const int32_t *begin = first + b * T;
            transposed(k + at_k, H * K, T, K, keys, room);
            transposed(v + at_v, H * V, T, V, values, room);
            for (whole t = 0; t < T; t++) {
                memset(of_k + at_k + t * H * K, 0, K * sizeof(float));
                memset(of_v + at_v + t * H * V, 0, V * sizeof(float));
            }
            for (whole t = 0; t < T; t += TILE) {
                whole count = T - t < TILE ? T - t : TILE, from = begin[t], end = t + count, seen = end - from;
                for (whole i = 0; i < count; i++) get(said + i * V, of_out, at_v + (t + i) * H * V, V, c->narrow);
                product((matrix){q + at_k + t * H * K, H * K, 1}, keys + from, room, p, room, count, K, padded(seen), 0);
                for (whole i = 0; i < count; i++) {
                    float log = logs[(b * T + t + i) * H + h];
                    hide(p + i * room, begin[t + i] - from, t + i - from + 1, padded(seen));
                    for (whole j = 0; j < seen; j += LANE) weigh(p + i * room + j, c->scale, log);
                }
                product((matrix){said, V, 1}, values + from, room, g, room, count, V, padded(seen), 0);
                product((matrix){p, 1, room}, said, V, of_v + at_v + from * H * V, H * V, seen, count, V, 1);
                for (whole i = 0; i < count; i++) {
                    float *restrict share = p + i * room, *restrict grad = g + i * room, mean = 0;
                    for (whole j = 0; j < seen; j++) mean += share[j] * grad[j];
                    for (whole j = 0; j < seen; j++) grad[j] = share[j] * (grad[j] - mean) * c->scale;
                }
                product((matrix){g, room, 1}, k + at_k + from * H * K, H * K, of_q + at_k + t * H * K, H * K, count, seen, K, 0);
                product((matrix){g, 1, room}, q + at_k + t * H * K, H * K, of_k + at_k + from * H * K, H * K, seen, count, K, 1);
            }
            free(keys);
        }
}
