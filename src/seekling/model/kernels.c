// What a decode step does between its matrix products, over a paged cache. Built twice by kernels.py: elements are
// float, or bfloat16 (-DBFLOAT16); sums are float either way. One thread a row or a head, so that the number of
// threads changes no bit. A page holds SLOTS tokens of one layer; keys stand transposed in it ([K][SLOTS]), so that the
// scores of a page are one vector and no sum runs across it.

#include "numbers.h"
#include "products.h"

#define TILE 8  // queries that read a page's keys together

// x [N, D] float gets y added (y may be none); out = x / rms(x) * weight.
static void add_norm_shared(float *x, const elem *y, const elem *weight, float eps, elem *out, whole rows, whole width) {
#pragma omp for
    for (whole n = 0; n < rows; n++) {
        float *restrict a = x + n * width, sum = 0;
        if (y) for (whole d = 0; d < width; d++) a[d] += load(y[n * width + d]);
#pragma omp simd reduction(+ : sum)
        for (whole d = 0; d < width; d++) sum += a[d] * a[d];
        float scale = 1.0f / sqrtf(sum / width + eps);
        for (whole d = 0; d < width; d++) out[n * width + d] = store(a[d] * scale * load(weight[d]));
    }
}

void add_norm(float *x, const elem *y, const elem *weight, float eps, elem *out, whole rows, whole width, int threads) {
    threads = hands(threads, 16 * rows * width);
#pragma omp parallel num_threads(threads) if (threads > 1)
    add_norm_shared(x, y, weight, eps, out, rows, width);
}

// out [N, F] = silu(gate) * up, each row of either `stride` after the one before.
void swiglu(const elem *gate, const elem *up, whole stride, elem *out, whole rows, whole width, int threads) {
    threads = hands(threads, 16 * rows * width);
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
#pragma omp simd reduction(+ : sum)
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
static void write_gqa_shared(const shape *c, const elem *q, const elem *k, const elem *v, const elem *q_norm, const elem *k_norm,
               const float *rotary, const whole *positions, const whole *places, float *queries, elem *keys,
               elem *values) {
    whole K = c->width, H = c->heads, J = c->kv_heads;
#pragma omp for
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

void write_gqa(const shape *c, const elem *q, const elem *k, const elem *v, const elem *q_norm, const elem *k_norm,
               const float *rotary, const whole *positions, const whole *places, float *queries, elem *keys,
               elem *values) {
#pragma omp parallel num_threads(c->threads) if (c->threads > 1)
    write_gqa_shared(c, q, k, v, q_norm, k_norm, rotary, positions, places, queries, keys, values);
}

// Scores of `count` queries [count][K] against one page of transposed keys, in `ways` sums that need not wait for each
// other: as many for one query as for several, so that a score does not depend on which others are asked with it.
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
SCORES(1, 4) SCORES(2, 4) SCORES(4, 4)

static void scores(const float *q, const elem *keys, whole K, float *out, whole stride, whole count) {
    whole a = 0;
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
static void attend_gqa_shared(const shape *c, const float *queries, const elem *keys, const elem *values, const whole *positions,
                const whole *starts, whole rows, const whole *tables, elem *out) {
    whole K = c->width, H = c->heads, J = c->kv_heads, G = H / J, at_once = G >= TILE ? 1 : TILE / G;
    whole parts = rows < 2 * c->threads ? J : 1, M = J / parts, size = K * SLOTS;
#pragma omp for collapse(2) schedule(dynamic)
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
                for (whole p = seen / SLOTS; p < pages; p++)
                    for (whole j = 0; j < M; j++) {
                        const elem *page = values + (table[p] * J + first_head + j) * size;
                        if (p + 1 < pages) fetch(values + (table[p + 1] * J + first_head + j) * size, size * sizeof(elem));
                        for (whole a = 0; a < count; a++) {  // what a query does not see must not decide how it sums
                            whole sees = least(SLOTS, positions[n + a / G] + 1 - p * SLOTS);
                            gather(sums + (j * count + a) * K, s + (j * count + a) * end + p * SLOTS, page, K, K, sees);
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

void attend_gqa(const shape *c, const float *queries, const elem *keys, const elem *values, const whole *positions,
                const whole *starts, whole rows, const whole *tables, elem *out) {
#pragma omp parallel num_threads(c->threads) if (c->threads > 1)
    attend_gqa_shared(c, queries, keys, values, positions, starts, rows, tables, out);
}

// --- multi-head latent attention, absorbed -----------------------------------------------------------------------------

// The latent [C] is normed, the key's rotary part [R] turned, both written to their place in a page [SLOTS][C + R];
// the rotary part of each query [H][nope + R] is turned in place. `width` is C + R, `kv_heads` stands for R.
static void write_mla_shared(const shape *c, elem *q, whole q_width, const elem *entry, const elem *norm_weight, const float *rotary,
               const whole *positions, const whole *places, elem *latents) {
    whole W = c->width, R = c->kv_heads, C = W - R;
#pragma omp for
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

void write_mla(const shape *c, elem *q, whole q_width, const elem *entry, const elem *norm_weight, const float *rotary,
               const whole *positions, const whole *places, elem *latents) {
#pragma omp parallel num_threads(c->threads) if (c->threads > 1)
    write_mla_shared(c, q, q_width, entry, norm_weight, rotary, positions, places, latents);
}

// `count` channels of a page [SLOTS][stride], turned: [count][SLOTS].
static inline void turn_page(const elem *page, whole stride, whole count, elem *turned) {
    if (count < SLOTS) {
        for (whole i = 0; i < count; i++)
            for (whole slot = 0; slot < SLOTS; slot++) turned[i * SLOTS + slot] = page[slot * stride + i];
        return;
    }
    vec x[SLOTS];
    for (whole slot = 0; slot < SLOTS; slot++) x[slot] = load_vec(page + slot * stride);
    turn(x);
    for (whole i = 0; i < SLOTS; i++) store_vec(turned + i * SLOTS, x[i]);
}

// out [H, N, C]: absorbed queries [H, N, C] and rotary ones (the last R of q [N, H, q_width]) against the latents of
// each token's row. All heads read the same page, turned once into [W][SLOTS].
static void attend_mla_shared(const shape *c, const elem *absorbed, const elem *q, whole q_width, const elem *latents,
                const whole *positions, const whole *rows, const whole *tables, elem *out) {
    whole W = c->width, R = c->kv_heads, C = W - R, H = c->heads, N = c->tokens;
#pragma omp for schedule(dynamic)
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
            for (whole i = 0; i < W; i += SLOTS) turn_page(latent + i, W, least(SLOTS, W - i), turned + i * SLOTS);
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

void attend_mla(const shape *c, const elem *absorbed, const elem *q, whole q_width, const elem *latents,
                const whole *positions, const whole *rows, const whole *tables, elem *out) {
#pragma omp parallel num_threads(c->threads) if (c->threads > 1)
    attend_mla_shared(c, absorbed, q, q_width, latents, positions, rows, tables, out);
}

// --- experts -----------------------------------------------------------------------------------------------------------

typedef struct {
    whole experts, best, groups, groups_kept;
    int normalise, sigmoid;
    float scale;
} choice;

// The `best` of E affinities (plus bias, where there is one), the likeliest first, and what they weigh (moe.py). Of
// several groups of experts only the `groups_kept` best are open.
static void choose_shared(const float *affinity, const float *bias, whole N, const choice *c, whole *chosen, float *weights) {
    whole E = c->experts, best = c->best, groups = c->groups, size = E / groups;
#pragma omp for
    for (whole n = 0; n < N; n++) {
        const float *own = affinity + n * E;
        float open[E], of_group[groups];
        for (whole e = 0; e < E; e++) open[e] = own[e] + (bias ? bias[e] : 0.0f);
        for (whole g = 0; g < groups; g++) {
            float first = -INFINITY, second = -INFINITY;
            for (whole e = g * size; e < (g + 1) * size; e++) {
                if (open[e] > first) second = first, first = open[e];
                else if (open[e] > second) second = open[e];
            }
            of_group[g] = bias && size > 1 ? first + second : first;
        }
        for (whole closed = c->groups_kept; closed < groups; closed++) {
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
        for (whole a = 0; a < best; a++) weights[n * best + a] = weights[n * best + a] / (c->normalise ? sum : 1.0f) * c->scale;
    }
}

void choose(const float *affinity, const float *bias, whole N, const choice *c, whole *chosen, float *weights, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    choose_shared(affinity, bias, N, c, chosen, weights);
}

typedef struct {
    const void *gate_up, *down;                     // [E][2 F][D] and [E][D][F]
    const float *gate_up_scales, *down_scales;      // [E][2 F] and [E][D] where they are int8, or none
    whole experts, width, hidden;                   // E, D, F
} stack;

static inline matrix one_of(const void *weight, const float *scales, whole row, whole out, whole in) {
    whole at = row * in * (scales ? 1 : (whole)sizeof(elem));
    return (matrix){(const char *)weight + at, NULL, scales ? scales + row : NULL, out, in};
}

typedef struct {  // who is asked what: A experts of each of N tokens, the rows [M = N A] of an expert side by side
    whole num_asked, *asked;        // experts that have rows
    whole *starts, *groups;         // [E + 1] where an expert's rows begin, in rows and in groups of SLOTS
    whole *order, *place;           // [M] token * A + a of a row, and the row of that
    elem *sent, *hidden;            // [M][D], [M][F]
    void *room;
    float *answers;                 // [M][D]
} posting;

static posting posted(whole N, whole A, const stack *s) {
    whole M = N * A, E = s->experts, wider = s->width > s->hidden ? s->width : s->hidden;
    posting p = {.starts = malloc(sizeof(whole) * (2 * M + 3 * E + 2))};
    p.groups = p.starts + E + 1, p.asked = p.groups + E + 1, p.order = p.asked + E, p.place = p.order + M;
    p.sent = malloc(sizeof(elem) * M * (s->width + s->hidden)), p.hidden = p.sent + M * s->width;
    p.answers = malloc(sizeof(float) * M * s->width);
    p.room = malloc(sizeof(float) * (M + SLOTS * E) * wider);
    return p;
}

static void forget(posting p) { free(p.starts), free(p.sent), free(p.answers), free(p.room); }

static void sort_by_expert(posting *p, const whole *chosen, whole M, whole E) {
    whole next[E];
    memset(p->starts, 0, sizeof(whole) * (E + 1));
    for (whole m = 0; m < M; m++) p->starts[chosen[m] + 1]++;
    p->groups[0] = p->num_asked = 0;
    for (whole e = 0; e < E; e++) {
        if (p->starts[e + 1]) p->asked[p->num_asked++] = e;
        p->groups[e + 1] = p->groups[e] + up_to(p->starts[e + 1], SLOTS);
        p->starts[e + 1] += p->starts[e], next[e] = p->starts[e];
    }
    for (whole m = 0; m < M; m++) p->place[m] = next[chosen[m]]++, p->order[p->place[m]] = m;
}

// x [M][D] as the products with matrices like m, of each expert that is asked, read it.
static void laid_out_each(const posting *p, const elem *x, const matrix *m, whole columns, input *each) {
    whole D = m->in;
    for (whole i = 0; i < p->num_asked; i++) {
        whole e = p->asked[i], first = p->starts[e];
        each[i] = laid_out(x + first * D, p->starts[e + 1] - first, m, columns, (float *)p->room + p->groups[e] * SLOTS * D);
    }
    wait_for(each);
}

// Each of N tokens through its A experts, weighed and summed in order.
static void experts_shared(const elem *x, const whole *chosen, const float *weights, const stack *s, whole N, whole A,
                           posting *p, target to) {
    whole D = s->width, F = s->hidden, columns = N > 1 ? SLOTS : 1, blocks = up_to(F, SLOTS), pairs = up_to(D, 2 * SLOTS);
    input each[s->experts];
    matrix into = one_of(s->gate_up, s->gate_up_scales, 0, F, D), back = one_of(s->down, s->down_scales, 0, D, F);
    each[0].copied = 0;
#pragma omp single
    sort_by_expert(p, chosen, N * A, s->experts);
#pragma omp for
    for (whole m = 0; m < N * A; m++) memcpy(p->sent + m * D, x + p->order[m] / A * D, D * sizeof(elem));
    laid_out_each(p, p->sent, &into, columns, each);
#pragma omp for collapse(2) schedule(dynamic)
    for (whole i = 0; i < p->num_asked; i++)
        for (whole b = 0; b < blocks; b++) {
            whole e = p->asked[i];
            matrix gate = one_of(s->gate_up, s->gate_up_scales, 2 * e * F, F, D);
            matrix up = one_of(s->gate_up, s->gate_up_scales, (2 * e + 1) * F, F, D);
            gated(&gate, &up, b, b + 1, each + i, (target){ELEMENTS, p->hidden + p->starts[e] * F, F});
        }
    laid_out_each(p, p->hidden, &back, columns, each);
#pragma omp for collapse(2) schedule(dynamic)
    for (whole i = 0; i < p->num_asked; i++)
        for (whole b = 0; b < pairs; b++) {
            whole e = p->asked[i];
            matrix down = one_of(s->down, s->down_scales, e * D, D, F);
            product(&down, 2 * b, least(2 * b + 2, up_to(D, SLOTS)), each + i,
                    (target){FLOATS, p->answers + p->starts[e] * D, D});
        }
#pragma omp for
    for (whole n = 0; n < N; n++)
        for (whole d = 0; d < D; d += SLOTS) {
            vec sum = {0}, answer = {0};
            whole count = least(SLOTS, D - d);
            for (whole a = 0; a < A; a++) {
                memcpy(&answer, p->answers + p->place[n * A + a] * D + d, count * sizeof(float));
                sum += weights[n * A + a] * answer;
            }
            put(to, n, d, count, sum);
        }
}

void experts(const elem *x, const whole *chosen, const float *weights, const stack *s, elem *out, whole N, whole A, int threads) {
    posting p = posted(N, A, s);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        open_tiles(N > 1 ? SLOTS : 1);
        experts_shared(x, chosen, weights, s, N, A, &p, (target){ELEMENTS, out, s->width});
        close_tiles();
    }
    forget(p);
}

#include "block.h"
