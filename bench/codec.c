/* What a message costs to decode and to encode again, beside the bare libraries' own parse and dump of the
 * same bytes, by turns in one run: `codec [SECONDS [ROUNDS]]`. CPU time of this one thread. */
#include <rpcrew.h>
#include <rpcrew/impl/message.h>
#include <rpcrew/impl/protocol.h>

#include <err.h>
#include <jansson.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS_MOST = 100 };

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Keeps the compiler from leaving out what nobody looks at. */
static volatile size_t sink;

/* ---- the four ways ---- */

static const crew_protocol *protocol;
static const crew_limits *limits;

static void through_rpcrew(crew_string bytes)
{
    static crew_arena arena;
    static crew_buffer out;
    crew_wire_calls calls;
    if (protocol->decode_calls(bytes, limits, &arena, &calls) != CREW_OK || calls.items[0].code ||
        protocol->encode_call(calls.items[0].method, calls.items[0].params, 1, &out) != CREW_OK)
        errx(1, "rpcrew: a message that is none");
    sink = out.size;
    crew_buffer_clear(&out);
    crew_arena_reset(&arena);
}

static void through_jansson(crew_string bytes)
{
    json_t *json = json_loadb(bytes.data, bytes.size, 0, NULL);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    if (!text)
        errx(1, "jansson: a message that is none");
    sink = strlen(text);
    free(text);
    json_decref(json);
}

static void through_msgpack_c(crew_string bytes)
{
    static msgpack_sbuffer out;
    msgpack_unpacked unpacked;
    msgpack_packer packer;
    msgpack_unpacked_init(&unpacked);
    if (msgpack_unpack_next(&unpacked, bytes.data, bytes.size, NULL) != MSGPACK_UNPACK_SUCCESS)
        errx(1, "msgpack-c: a message that is none");
    out.size = 0;
    msgpack_packer_init(&packer, &out, msgpack_sbuffer_write);
    msgpack_pack_object(&packer, unpacked.data);
    sink = out.size;
    msgpack_unpacked_destroy(&unpacked);
}

/* ---- measuring ---- */

static double cost_ns(void (*way)(crew_string), crew_string bytes, double seconds)
{
    size_t count = 0, burst = 1;
    double start = now_ns(), passed;
    do {
        for (size_t i = 0; i < burst; i++)
            way(bytes);
        count += burst;
        passed = now_ns() - start;
        if (passed < seconds * 1e8)
            burst *= 2;
    } while (passed < seconds * 1e9);
    return passed / (double)count;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *of, size_t count)
{
    qsort(of, count, sizeof *of, by_size);
    return of[count / 2];
}

static void compare(const char *label, const crew_value *params, double seconds, size_t rounds)
{
    static const struct {
        const char *protocol, *rival;
        void (*bare)(crew_string);
    } ways[] = { { "jsonrpc", "jansson", through_jansson }, { "msgpack", "msgpack-c", through_msgpack_c } };
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        double ours[ROUNDS_MOST], theirs[ROUNDS_MOST], ratios[ROUNDS_MOST];
        crew_buffer bytes = { 0 };
        protocol = crew_protocol_find(ways[w].protocol);
        if (protocol->encode_call(crew_str("subtract"), params, 1, &bytes) != CREW_OK)
            errx(1, "no memory");
        for (size_t i = 0; i < rounds; i++) {
            ours[i] = cost_ns(through_rpcrew, crew_buffer_string(&bytes), seconds);
            theirs[i] = cost_ns(ways[w].bare, crew_buffer_string(&bytes), seconds);
            ratios[i] = ours[i] / theirs[i];
        }
        double ratio = median(ratios, rounds);
        printf("%-22s %8zu  %-9s %11.0f %11.0f  %.2f (%.2f to %.2f)\n", label, bytes.size, ways[w].rival,
               median(ours, rounds), median(theirs, rounds), ratio, ratios[0], ratios[rounds - 1]);
        (void)fflush(stdout);
        crew_buffer_fini(&bytes);
    }
}

/* ---- messages ---- */

static const crew_value *make(crew_arena *arena, const char *item, size_t count)
{
    crew_buffer text = { 0 };
    const crew_value *value;
    crew_buffer_text(&text, "[");
    for (size_t i = 0; i < count; i++)
        crew_buffer_printf(&text, "%s%s", i ? "," : "", item);
    crew_buffer_text(&text, "]");
    if (crew_json_decode(crew_buffer_string(&text), NULL, arena, &value, NULL) != CREW_OK)
        errx(1, "no such value");
    crew_buffer_fini(&text);
    return value;
}

static const crew_value *make_string(crew_arena *arena, size_t size)
{
    const crew_value *value;
    char *text = malloc(size);
    if (!text)
        errx(1, "no memory");
    memset(text, 'x', size);
    if (crew_pack(arena, &value, "[s%]", text, size) != CREW_OK)
        errx(1, "no memory");
    free(text);
    return value;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 0.3;
    size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 5;
    crew_arena arena = { 0 };
    crew_limits resolved = crew_limits_resolve(NULL);
    limits = &resolved;
    if (seconds <= 0 || rounds < 1 || rounds > ROUNDS_MOST)
        errx(2, "usage: codec [SECONDS [ROUNDS]]");
    static const char record[] = "{\"id\":12345,\"name\":\"a name of some length\",\"active\":true,"
                                 "\"score\":0.75,\"tags\":[\"red\",\"green\"],\"parent\":null}";
    printf("A request decoded and encoded again: rpcrew beside the library's own parse and dump\n");
    printf("%-22s %8s  %-9s %11s %11s  ratio, median (least to most)\n", "params", "bytes", "library",
           "rpcrew ns", "bare ns");
    compare("two ints", make(&arena, "42", 2), seconds, rounds);
    compare("a record", make(&arena, record, 1), seconds, rounds);
    compare("20 records", make(&arena, record, 20), seconds, rounds);
    compare("1000 records", make(&arena, record, 1000), seconds, rounds);
    compare("1000 ints", make(&arena, "123456", 1000), seconds, rounds);
    compare("1000 doubles", make(&arena, "0.123456789", 1000), seconds, rounds);
    compare("a string of 64 KiB", make_string(&arena, 65536), seconds, rounds);
    crew_arena_fini(&arena);
    return 0;
}
