/* The work of a call with jansson, and nothing else. */
#include "floor.h"

#include "load.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

struct floor_client {
    unsigned lanes, out; /* lane i's call has an id that is i modulo lanes */
    int64_t start_ns, end_ns;
    bool is_over; /* decided in one place: who asks the clock twice may wait for what was never sent */
    int64_t *started_ns;
    unsigned *ids, *idle; /* by lane; the lanes without a call */
    unsigned idle_count;
    struct latencies latencies;
};

void floor_fail(const char *what)
{
    fprintf(stderr, "floor: %s\n", what);
    exit(1);
}

char *floor_answer(const char *request, size_t size)
{
    json_error_t why;
    int minuend, subtrahend;
    const char *version, *method;
    json_t *id, *message = json_loadb(request, size, 0, &why);
    if (json_unpack(message, "{s:s,s:s,s:[i,i],s:o}", "jsonrpc", &version, "method", &method, "params",
                    &minuend, &subtrahend, "id", &id) != 0)
        floor_fail("a request that is none");
    json_t *answer = json_pack("{s:s,s:i,s:O}", "jsonrpc", "2.0", "result", minuend - subtrahend, "id", id);
    char *text = json_dumps(answer, JSON_COMPACT);
    json_decref(answer);
    json_decref(message);
    return text;
}

struct floor_client *floor_client_new(const char *calls_at_a_time, const char *seconds)
{
    struct floor_client *c = calloc(1, sizeof *c);
    c->lanes = c->idle_count = (unsigned)strtoul(calls_at_a_time, NULL, 10);
    c->started_ns = calloc(c->lanes, sizeof *c->started_ns);
    c->ids = calloc(c->lanes, sizeof *c->ids);
    c->idle = calloc(c->lanes, sizeof *c->idle);
    for (unsigned i = 0; i < c->lanes; i++)
        c->idle[i] = c->ids[i] = i;
    c->start_ns = load_now_ns();
    c->end_ns = c->start_ns + (int64_t)(strtod(seconds, NULL) * 1e9);
    return c;
}

unsigned floor_client_lanes(const struct floor_client *client)
{
    return client->lanes;
}

char *floor_client_request(struct floor_client *c)
{
    if (c->is_over || !c->idle_count)
        return NULL;
    unsigned lane = c->idle[--c->idle_count];
    c->ids[lane] += c->lanes;
    c->started_ns[lane] = load_now_ns();
    c->out++;
    json_t *request = json_pack("{s:s,s:s,s:[i,i],s:I}", "jsonrpc", "2.0", "method", "subtract", "params", 42,
                                23, "id", (json_int_t)c->ids[lane]);
    char *text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    return text;
}

bool floor_client_answer(struct floor_client *c, const char *answer, size_t size)
{
    json_error_t why;
    int result;
    json_int_t id;
    json_t *message = json_loadb(answer, size, 0, &why);
    if (json_unpack(message, "{s:i,s:I}", "result", &result, "id", &id) != 0 || result != 19)
        floor_fail("an answer that is none");
    json_decref(message);
    unsigned lane = (unsigned)id % c->lanes;
    if (c->ids[lane] != (unsigned)id)
        floor_fail("an answer to another call");
    int64_t now = load_now_ns();
    latencies_add(&c->latencies, (uint64_t)(now - c->started_ns[lane]) / 1000);
    c->idle[c->idle_count++] = lane;
    c->out--;
    c->is_over |= now >= c->end_ns;
    return c->out || !c->is_over;
}

int floor_client_end(struct floor_client *c)
{
    struct failures none = { .mutex = PTHREAD_MUTEX_INITIALIZER };
    struct load_summary summary = { .failures = &none,
                                    .seconds = (double)(load_now_ns() - c->start_ns) / 1e9,
                                    .latencies = &c->latencies };
    load_print(&summary, true, stdout);
    return 0;
}
