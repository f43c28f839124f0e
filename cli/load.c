/* Latencies and progress. */
#include "load.h"

#include <time.h>
#include <unistd.h>

enum { EXACT = 128, STEPS = 64, BAR = 40, NS_PER_S = 1000000000 };

int64_t load_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_S + now.tv_nsec;
}

void load_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += NS_PER_S / 10;
    until.tv_sec += until.tv_nsec / NS_PER_S;
    until.tv_nsec %= NS_PER_S;
    (void)pthread_cond_timedwait(condition, mutex, &until);
}

/* Each power of two from 128 up is divided into 64 steps. */
static size_t bucket_of(uint64_t us)
{
    if (us < EXACT)
        return us;
    unsigned power = 63U - (unsigned)__builtin_clzll(us);
    return EXACT + (size_t)(power - 7) * STEPS + ((us >> (power - 6)) & (STEPS - 1));
}

static uint64_t value_of(size_t bucket)
{
    if (bucket < EXACT)
        return bucket;
    unsigned power = (unsigned)(bucket - EXACT) / STEPS + 7;
    return (STEPS + (bucket - EXACT) % STEPS) << (power - 6);
}

void latencies_add(struct latencies *l, uint64_t us)
{
    uint64_t most = atomic_load(&l->most);
    atomic_fetch_add_explicit(&l->buckets[bucket_of(us)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->count, 1, memory_order_relaxed);
    while (us > most && !atomic_compare_exchange_weak(&l->most, &most, us))
        continue;
}

uint64_t latencies_at(struct latencies *l, double share)
{
    double wanted = share * (double)atomic_load(&l->count), seen = 0;
    for (size_t i = 0; i < sizeof l->buckets / sizeof *l->buckets; i++) {
        seen += atomic_load(&l->buckets[i]);
        if (seen > 0 && seen >= wanted)
            return value_of(i);
    }
    return 0;
}

static void print_figure(FILE *file, bool json, bool first, const char *name, uint64_t figure)
{
    if (json)
        (void)fprintf(file, "%s\"%s\":%llu", first ? "{" : ",", name, (unsigned long long)figure);
    else
        (void)fprintf(file, "%s%s %llu", first ? "" : "  ", name, (unsigned long long)figure);
}

void load_print(const struct load_summary *s, bool json, FILE *file)
{
    double rate = s->seconds > 0 ? (double)s->calls / s->seconds : 0;
    print_figure(file, json, true, "calls", s->calls);
    print_figure(file, json, false, "errors", s->errors);
    (void)fprintf(file, json ? ",\"calls_per_s\":%.1f" : "  calls_per_s %.0f", rate);
    print_figure(file, json, false, "p50_us", latencies_at(s->latencies, 0.5));
    print_figure(file, json, false, "p90_us", latencies_at(s->latencies, 0.9));
    print_figure(file, json, false, "p99_us", latencies_at(s->latencies, 0.99));
    print_figure(file, json, false, "max_us", atomic_load(&s->latencies->most));
    if (s->stats) {
        print_figure(file, json, false, "resent", s->stats->resent);
        print_figure(file, json, false, "retried", s->stats->retried);
    }
    (void)fputs(json ? "}\n" : "\n", file);
}

void load_progress_show(struct load_progress *p, double share, uint64_t calls)
{
    int64_t now = load_now_ns();
    char bar[BAR + 1] = "";
    if (now < p->next_ns || !isatty(STDERR_FILENO))
        return;
    if (!p->started_ns)
        p->started_ns = now;
    p->next_ns = now + NS_PER_S / 10;
    int full = share > 1 ? BAR : (int)(share * (double)BAR);
    for (int i = 0; share >= 0 && i < BAR; i++)
        bar[i] = i < full ? '#' : '.';
    double seconds = (double)(now - p->started_ns) / (double)NS_PER_S;
    (void)fprintf(stderr, "\r%s%s%llu calls, %.0f calls/s\033[K", bar, share < 0 ? "" : " ",
                  (unsigned long long)calls, seconds > 0 ? (double)calls / seconds : 0);
    (void)fflush(stderr);
    p->shown = true;
}

void load_progress_done(struct load_progress *p)
{
    if (p->shown)
        (void)fputs("\r\033[K", stderr);
    p->shown = false;
}

void load_progress_hide(struct load_progress *p)
{
    if (!p->shown || !isatty(STDOUT_FILENO))
        return;
    load_progress_done(p);
    p->next_ns = 0;
}
