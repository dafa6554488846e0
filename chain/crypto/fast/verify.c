/* Many secp256k1 checks at once, off the interpreter: worker threads that never need the GIL call libsecp256k1 through the pointers given.

   start ──► a job of `count` items; threads and whoever waits take the next item each until none is left
   wait  ──► helps, returns when every verdict is written, and frees the job

   An item is 160 bytes: a parsed key (64, libsecp256k1's own form), a digest (32), a compact signature (64). Without it everything works:
   chain/crypto/batch.py has the plain form. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))
#define ITEM 160

typedef int (*parse_signature)(const void *context, void *signature, const uint8_t *compact);
typedef int (*verify)(const void *context, const void *signature, const uint8_t *digest, const void *key);

typedef struct job {
    const uint8_t *items;
    uint8_t *verdicts;
    uint32_t count;
    atomic_uint next, left;
    int users; /* threads that look at it, under the pool's lock */
    struct job *following;
} job;

typedef struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    job *first, *last;
    const void *context;
    parse_signature parse;
    verify check;
    int ending;
    uint32_t holds; /* its owner and every job not waited for, under the lock: the last one frees it */
    uint32_t threads;
    pthread_t ids[64];
} pool;

static void help(pool *p, job *j) {
    for (;;) {
        uint32_t at = atomic_fetch_add(&j->next, 1);
        if (at >= j->count) return;
        const uint8_t *item = j->items + (size_t)at * ITEM;
        uint8_t signature[64];
        j->verdicts[at] = p->parse(p->context, signature, item + 96) && p->check(p->context, signature, item + 64, item);
        atomic_fetch_sub(&j->left, 1);
    }
}

static void *run(void *argument) {
    pool *p = argument;
    pthread_mutex_lock(&p->lock);
    while (!p->ending) {
        job *j = p->first;
        if (!j) {
            pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        j->users++;
        pthread_mutex_unlock(&p->lock);
        help(p, j);
        pthread_mutex_lock(&p->lock);
        if (p->first == j) { /* nothing is left to take of it */
            p->first = j->following;
            if (!p->first) p->last = NULL;
        }
        j->users--;
        pthread_cond_broadcast(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Gives back the lock. */
static void let_go(pool *p) {
    int last = !--p->holds;
    pthread_mutex_unlock(&p->lock);
    if (!last) return;
    pthread_mutex_destroy(&p->lock), pthread_cond_destroy(&p->work), pthread_cond_destroy(&p->done);
    free(p);
}

EXPORT pool *verify_open(uint32_t threads, const void *context, uintptr_t parse, uintptr_t check) {
    pool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->context = context, p->parse = (parse_signature)parse, p->check = (verify)check, p->holds = 1;
    pthread_mutex_init(&p->lock, NULL), pthread_cond_init(&p->work, NULL), pthread_cond_init(&p->done, NULL);
    while (p->threads < threads && p->threads < 64 && !pthread_create(&p->ids[p->threads], NULL, run, p)) p->threads++;
    return p;
}

/* `items` and `verdicts` stay valid until verify_wait. NULL: no memory. */
EXPORT job *verify_start(pool *p, const uint8_t *items, uint32_t count, uint8_t *verdicts) {
    job *j = calloc(1, sizeof *j);
    if (!j) return NULL;
    j->items = items, j->verdicts = verdicts, j->count = count;
    atomic_init(&j->next, 0), atomic_init(&j->left, count);
    pthread_mutex_lock(&p->lock);
    p->holds++;
    if (p->threads) {
        if (p->last) p->last->following = j;
        else p->first = j;
        p->last = j;
        pthread_cond_signal(&p->work);
    }
    pthread_mutex_unlock(&p->lock);
    return j;
}

EXPORT void verify_wait(pool *p, job *j) {
    help(p, j);
    pthread_mutex_lock(&p->lock);
    for (job **at = &p->first, *before = NULL; *at; before = *at, at = &(*at)->following) {
        if (*at != j) continue;
        *at = j->following;
        if (p->last == j) p->last = before;
        break;
    }
    while (j->users || atomic_load(&j->left)) pthread_cond_wait(&p->done, &p->lock);
    free(j);
    let_go(p);
}

/* Ends the threads. Jobs that are left may still be waited for: whoever waits checks alone. */
EXPORT void verify_close(pool *p) {
    pthread_mutex_lock(&p->lock);
    p->ending = 1;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t at = 0; at < p->threads; at++) pthread_join(p->ids[at], NULL);
    pthread_mutex_lock(&p->lock);
    let_go(p);
}
