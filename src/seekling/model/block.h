// A whole block of the decoder in one call: what block.extend of decoder.py does by parts, for few tokens.

#pragma once

typedef struct {
    shape heads;  // `tokens`, `table_stride` and `threads` are the chunk's
    whole is_latent, nope, v_width;
    const elem *input_norm, *after_norm;
    float eps, q_a_eps, inner_eps;
    const elem *q_a_norm, *q_norm, *k_norm;  // k_norm is the latent's in MLA
    matrix q_a, q, k, v, o;                  // k makes MLA's entries; q_a has no outputs where queries have one matrix
    const elem *kv_b;
    matrix gate, up, down;                   // dense, or shared experts; without outputs where there are none
    const void *router;                      // [E][D], or none
    int router_is_float;
    const float *router_bias;
    choice choice;
    stack stack;
} layer;

typedef struct {
    whole tokens, rows, table_stride;
    const whole *positions, *places, *starts, *row_of, *tables;
    const float *rotary;
    int threads;
} chunk;

typedef struct {  // what one block needs to write to
    elem *normed, *low, *q, *k, *v, *attended, *hidden;
    float *queries, *weights;
    void *room;
} desk;

static whole widest(const layer *l) {
    const matrix *all[] = {&l->q_a, &l->q, &l->k, &l->v, &l->o, &l->gate, &l->down};
    whole most = 0;
    for (int i = 0; i < 7; i++) {
        most = all[i]->in > most ? all[i]->in : most;
        most = all[i]->out > most ? all[i]->out : most;
    }
    return most;
}

static desk laid(const layer *l, whole N) {
    whole W = widest(l), Q = 2 * l->heads.heads * l->heads.width, padded = up_to(N, SLOTS) * SLOTS;
    elem *all = malloc(sizeof(elem) * N * W * 7);
    desk d = {all, all + N * W, all + 2 * N * W, all + 3 * N * W, all + 4 * N * W, all + 5 * N * W, all + 6 * N * W, 0, 0, 0};
    d.queries = malloc(sizeof(float) * (N * (Q + l->choice.best) + padded * W));
    d.weights = d.queries + N * Q, d.room = d.weights + N * l->choice.best;
    return d;
}

static void cleared(desk d) { free(d.normed), free(d.queries); }

static inline target at(elem *y, const matrix *m) { return (target){ELEMENTS, y, m->out}; }

static void norm_rows(const elem *x, const elem *weight, float eps, whole N, whole D, elem *out) {
#pragma omp for
    for (whole n = 0; n < N; n++) {
        float own[D];
        for (whole d = 0; d < D; d++) own[d] = load(x[n * D + d]);
        norm(own, weight, D, eps);
        for (whole d = 0; d < D; d++) out[n * D + d] = store(own[d]);
    }
}

// Queries and what is written beside them: to d.q, d.k, d.v.
static void ask(const layer *l, const input *x, const desk *d) {
    if (l->q_a.out) shared_product(&l->q_a, x, at(d->low, &l->q_a));
    else shared_product(&l->q, x, at(d->q, &l->q));
    shared_product(&l->k, x, at(d->k, &l->k));
    if (l->v.out) shared_product(&l->v, x, at(d->v, &l->v));
#pragma omp barrier
    if (!l->q_a.out) return;
    norm_rows(d->low, l->q_a_norm, l->q_a_eps, x->count, l->q_a.out, d->low);
    input low = laid_out(d->low, x->count, &l->q, x->columns, d->room);
    wait_for(&low);
    shared_product(&l->q, &low, at(d->q, &l->q));
#pragma omp barrier
}

// sum [C] += q [K] W [K][C], in the order of K.
static void pass_through(const elem *q, const elem *w, whole K, whole C, elem *out) {
    whole c = 0;
    for (; c + 4 * SLOTS <= C; c += 4 * SLOTS) {
        vec sum[4] = {0};
        for (whole k = 0; k < K; k++)
            for (int i = 0; i < 4; i++) sum[i] += load(q[k]) * load_vec(w + k * C + c + i * SLOTS);
        for (int i = 0; i < 4; i++) store_vec(out + c + i * SLOTS, sum[i]);
    }
    for (; c < C; c++) {
        float sum = 0;
        for (whole k = 0; k < K; k++) sum += load(q[k]) * load(w[k * C + c]);
        out[c] = store(sum);
    }
}

// out [N][H V]: what each head finds in latents [H][N][C], through its rows of kv_b [H][nope + V][C].
static void unfold(const layer *l, const elem *latents, whole N, elem *out) {
    whole H = l->heads.heads, C = l->heads.width - l->heads.kv_heads, V = l->v_width, groups = up_to(N, SLOTS);
#pragma omp for collapse(2)
    for (whole h = 0; h < H; h++)
        for (whole g = 0; g < groups; g++) {
            whole count = least(SLOTS, N - g * SLOTS);
            float wide[SLOTS * C];
            for (whole i = 0; i < count * C; i++) wide[i] = load(latents[(h * N + g * SLOTS) * C + i]);
            for (whole o = 0; o < V; o += SLOTS) {
                vec sums[SLOTS];
                vectors(HELD, l->kv_b, h * (l->nope + V) + l->nope + o, least(SLOTS, V - o), wide, count, C, sums);
                for (whole t = 0; t < count; t++)
                    put((target){ELEMENTS, out, H * V}, g * SLOTS + t, h * V + o, least(SLOTS, V - o), sums[t]);
            }
        }
}

static void attend_latents(const layer *l, const chunk *c, const shape *s, const desk *d, elem *latents) {
    whole N = c->tokens, H = s->heads, C = s->width - s->kv_heads, K = l->nope + s->kv_heads, V = l->v_width;
    elem *absorbed = (elem *)d->queries, *found = absorbed + H * N * C;
    write_mla_shared(s, d->q, K, d->k, l->k_norm, c->rotary, c->positions, c->places, latents);
#pragma omp for collapse(2)
    for (whole h = 0; h < H; h++)
        for (whole n = 0; n < N; n++)
            pass_through(d->q + (n * H + h) * K, l->kv_b + h * (l->nope + V) * C, l->nope, C, absorbed + (h * N + n) * C);
    attend_mla_shared(s, absorbed, d->q, K, latents, c->positions, c->row_of, c->tables, found);
    unfold(l, found, N, d->attended);
}

static void attend_heads(const layer *l, const chunk *c, const shape *s, const desk *d, elem *keys, elem *values) {
    write_gqa_shared(s, d->q, d->k, d->v, l->q_norm, l->k_norm, c->rotary, c->positions, c->places, d->queries, keys, values);
    attend_gqa_shared(s, d->queries, keys, values, c->positions, c->starts, c->rows, c->tables, d->attended);
}

// Affinities [N][E] of tokens to experts, the product in float (moe.py, Router).
static void route(const layer *l, const elem *x, whole N, whole D, float *affinity) {
    whole E = l->choice.experts;
#pragma omp for
    for (whole n = 0; n < N; n++) {
        float own[D], *to = affinity + n * E, most = -INFINITY, sum = 0;
        for (whole d = 0; d < D; d++) own[d] = load(x[n * D + d]);
        for (whole e = 0; e < E; e += SLOTS) {
            vec sums[1];
            whole count = least(SLOTS, E - e);
            if (l->router_is_float) vectors(WIDE, l->router, e, count, own, 1, D, sums);
            else vectors(HELD, l->router, e, count, own, 1, D, sums);
            memcpy(to + e, sums, count * sizeof(float));
        }
        if (!l->choice.sigmoid) for (whole e = 0; e < E; e++) most = to[e] > most ? to[e] : most;
        for (whole e = 0; e < E; e++) to[e] = l->choice.sigmoid ? 1 / (1 + expf(-to[e])) : expf(to[e] - most), sum += to[e];
        if (!l->choice.sigmoid) for (whole e = 0; e < E; e++) to[e] /= sum;
    }
}

// Multiplications that the products of one token take.
static whole effort(const layer *l) {
    const matrix *all[] = {&l->q_a, &l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    whole sum = l->choice.best * 3 * l->stack.width * l->stack.hidden;
    for (int i = 0; i < 8; i++) sum += all[i]->in * all[i]->out;
    return sum;
}

// The stream x [N, D] += attention, then += feed-forward. `keys` are latents in MLA; `chosen` [N, A] and `affinity`
// [N, E] are told where there are experts.
void block(const layer *l, const chunk *c, float *x, elem *keys, elem *values, whole *chosen, float *affinity) {
    whole N = c->tokens, D = l->o.out, columns = N > 1 ? SLOTS : 1;
    shape s = l->heads;
    s.tokens = N, s.table_stride = c->table_stride, s.threads = hands(c->threads, N * effort(l)), s.eps = l->inner_eps;
    desk d = laid(l, N);
    target stream = {ADDED, x, D};
    posting mail = {0};
    if (l->router) mail = posted(N, l->choice.best, &l->stack);
#pragma omp parallel num_threads(s.threads) if (s.threads > 1)
    {
        open_tiles(columns);
        add_norm_shared(x, NULL, l->input_norm, l->eps, d.normed, N, D);
        input normed = laid_out(d.normed, N, l->q_a.out ? &l->q_a : &l->q, columns, d.room);
        wait_for(&normed);
        ask(l, &normed, &d);
        if (l->is_latent) attend_latents(l, c, &s, &d, keys);
        else attend_heads(l, c, &s, &d, keys, values);
        input attended = laid_out(d.attended, N, &l->o, columns, d.room);
        wait_for(&attended);
        shared_product(&l->o, &attended, stream);
#pragma omp barrier
        add_norm_shared(x, NULL, l->after_norm, l->eps, d.normed, N, D);
        if (l->router) {
            route(l, d.normed, N, D, affinity);
            choose_shared(affinity, l->router_bias, N, &l->choice, chosen, d.weights);
            experts_shared(d.normed, chosen, d.weights, &l->stack, N, l->choice.best, &mail, stream);
        }
        if (l->gate.out) {
            normed = laid_out(d.normed, N, &l->gate, columns, d.room);
            wait_for(&normed);
            shared_gated(&l->gate, &l->up, &normed, at(d.hidden, &l->gate));
#pragma omp barrier
            input hidden = laid_out(d.hidden, N, &l->down, columns, d.room);
            wait_for(&hidden);
            shared_product(&l->down, &hidden, stream);
        }
        close_tiles();
    }
    forget(mail);
    cleared(d);
}

// y [N, O] = x [N, D] W^T.
void linear(const matrix *m, const elem *x, whole N, elem *y, int threads) {
    whole columns = N > 1 ? SLOTS : 1;
    void *room = malloc(sizeof(float) * up_to(N, SLOTS) * SLOTS * m->in);
    threads = hands(threads, N * m->out * m->in);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        open_tiles(columns);
        input own = laid_out(x, N, m, columns, room);
        wait_for(&own);
        shared_product(m, &own, at(y, m));
        close_tiles();
    }
    free(room);
}
