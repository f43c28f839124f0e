/* Latencies and progress. */
#include "load.h"

#include <string.h>
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

void failures_add(struct failures *f, const crew_error *why)
{
    pthread_mutex_lock(&f->mutex);
    size_t i = 0;
    while (i < f->kinds && i < FAILURES_KINDS - 1 &&
           (f->of[i].status != why->status || f->of[i].code != why->code))
        i++;
    struct failure *kind = &f->of[i];
    if (i == f->kinds) {
        f->kinds++;
        bool is_other = i == FAILURES_KINDS - 1;
        *kind = (struct failure){ .status = is_other ? CREW_STATUS_COUNT : why->status,
                                  .code = is_other ? 0 : why->code };
        (void)snprintf(kind->message, sizeof kind->message, "%.199s",
                       is_other             ? "of other kinds"
                       : *why->peer_message ? why->peer_message
                                            : crew_status_text(why->status));
        for (char *c = kind->message; *c; c++) /* the peer's: nothing that controls a terminal */
            if ((unsigned char)*c < ' ' || (unsigned char)*c >= 0x7F)
                *c = '?';
    }
    kind->count++;
    pthread_mutex_unlock(&f->mutex);
}

uint64_t failures_count(struct failures *f)
{
    uint64_t count = 0;
    pthread_mutex_lock(&f->mutex);
    for (size_t i = 0; i < f->kinds; i++)
        count += f->of[i].count;
    pthread_mutex_unlock(&f->mutex);
    return count;
}

static const char *name_of(const struct failure *kind)
{
    return kind->status == CREW_STATUS_COUNT ? "others" : crew_status_name(kind->status);
}

/* ---- for programs ---- */

static void print_figure(FILE *file, const char *name, uint64_t figure)
{
    (void)fprintf(file, "\"%s\":%llu,", name, (unsigned long long)figure);
}

static void print_json(const struct load_summary *s, uint64_t calls, double rate, FILE *file)
{
    (void)fputc('{', file);
    print_figure(file, "calls", calls);
    print_figure(file, "errors", failures_count(s->failures));
    if (!s->stats)
        print_figure(file, "unfinished", s->unfinished);
    (void)fprintf(file, "\"calls_per_s\":%.1f,", rate);
    print_figure(file, "p50_us", latencies_at(s->latencies, 0.5));
    print_figure(file, "p90_us", latencies_at(s->latencies, 0.9));
    print_figure(file, "p99_us", latencies_at(s->latencies, 0.99));
    print_figure(file, "max_us", atomic_load(&s->latencies->most));
    if (s->stats) {
        print_figure(file, "resent", s->stats->resent);
        print_figure(file, "retried", s->stats->retried);
    }
    (void)fputs("\"error_kinds\":[", file);
    for (size_t i = 0; i < s->failures->kinds; i++) {
        const struct failure *kind = &s->failures->of[i];
        (void)fprintf(file, "%s{\"status\":\"%s\",\"code\":%lld,\"count\":%llu}", i ? "," : "", name_of(kind),
                      (long long)kind->code, (unsigned long long)kind->count);
    }
    (void)fputs("]}\n", file);
}

/* ---- for people ---- */

/* 950 us, 1.25 ms, 12.5 ms, 1.25 s. */
static const char *duration(uint64_t us, char text[32])
{
    static const char *const units[] = { "us", "ms", "s" };
    double value = (double)us;
    size_t unit = 0;
    for (; value >= 1000 && unit < 2; unit++)
        value /= 1000;
    (void)snprintf(text, 32, "%.*f %s", !unit || value >= 100 ? 0 : value >= 10 ? 1 : 2, value, units[unit]);
    return text;
}

/* A line for each doubling, from the fastest to the slowest. */
static void print_histogram(const struct load_summary *s, uint64_t calls, FILE *file)
{
    uint64_t counts[64] = { 0 }, most = 1;
    size_t first = 64, last = 0;
    for (size_t i = 0; i < sizeof s->latencies->buckets / sizeof *s->latencies->buckets; i++) {
        uint64_t count = atomic_load(&s->latencies->buckets[i]), us = value_of(i);
        size_t power = us < 2 ? 0 : 63U - (unsigned)__builtin_clzll(us);
        if (!count)
            continue;
        counts[power] += count;
        most = counts[power] > most ? counts[power] : most;
        first = power < first ? power : first;
        last = power;
    }
    for (size_t power = first; power <= last && calls; power++) {
        char text[32], bar[BAR + 1] = "";
        size_t full = (size_t)((double)counts[power] / (double)most * (double)BAR + 0.5);
        memset(bar, '#', full);
        (void)fprintf(file, "  up to %8s  %5.1f %%  %s\n", duration((uint64_t)2 << power, text),
                      100.0 * (double)counts[power] / (double)calls, bar);
    }
}

static void print_text(const struct load_summary *s, uint64_t calls, double rate, FILE *file)
{
    char p50[32], p90[32], p99[32], max[32];
    (void)fprintf(file, "%llu calls in %.2f s, %u at a time: %.0f calls/s\n", (unsigned long long)calls,
                  s->seconds, s->concurrency, rate);
    if (calls)
        (void)fprintf(
            file, "latency: p50 %s, p90 %s, p99 %s, max %s\n", duration(latencies_at(s->latencies, 0.5), p50),
            duration(latencies_at(s->latencies, 0.9), p90), duration(latencies_at(s->latencies, 0.99), p99),
            duration(atomic_load(&s->latencies->most), max));
    print_histogram(s, calls, file);
    uint64_t errors = failures_count(s->failures);
    if (errors)
        (void)fprintf(file, "%llu errors, which are no calls above:\n", (unsigned long long)errors);
    for (size_t i = 0; i < s->failures->kinds; i++) {
        const struct failure *kind = &s->failures->of[i];
        (void)fprintf(file, "  %llu  %s", (unsigned long long)kind->count, name_of(kind));
        if (kind->code)
            (void)fprintf(file, " (code %lld)", (long long)kind->code);
        (void)fprintf(file, ": %s\n", kind->message);
    }
    if (s->unfinished)
        (void)fprintf(file, "%u were not answered when the time was over, and a second more\n",
                      s->unfinished);
}

void load_print(const struct load_summary *s, bool json, FILE *file)
{
    uint64_t calls = atomic_load(&s->latencies->count);
    double rate = s->seconds > 0 ? (double)calls / s->seconds : 0;
    if (json)
        print_json(s, calls, rate, file);
    else
        print_text(s, calls, rate, file);
}

void load_progress_show(struct load_progress *p, double share, uint64_t calls)
{
    int64_t now = load_now_ns();
    char bar[BAR + 1] = "";
    if (now < p->next_ns || !isatty(STDERR_FILENO))
        return;
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
