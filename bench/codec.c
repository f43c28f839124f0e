/* What a message costs to read and to write, beside the bare libraries' own parse and dump of the same bytes,
 * by turns in one run: `codec [SECONDS [ROUNDS]]`. CPU time of this one thread. */
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

/* ---- reading and writing ---- */

/* A message, and what each side has made of it: what is written is what has been read. */
static struct {
    const crew_protocol *protocol;
    crew_string bytes;
    crew_wire_call call;
    json_t *json;
    msgpack_unpacked unpacked;
} message;

static crew_limits limits;

static void read_rpcrew(void)
{
    static crew_arena arena;
    crew_wire_calls calls;
    if (message.protocol->decode_calls(message.bytes, &limits, &arena, &calls) != CREW_OK ||
        calls.items[0].code)
        errx(1, "rpcrew: a message that is none");
    sink = calls.count;
    crew_arena_reset(&arena);
}

static void write_rpcrew(void)
{
    static crew_buffer out;
    if (message.protocol->encode_call(message.call.method, message.call.params, 1, &out) != CREW_OK)
        errx(1, "rpcrew: a call that cannot be written");
    sink = out.size;
    crew_buffer_clear(&out);
}

static void read_jansson(void)
{
    json_t *json = json_loadb(message.bytes.data, message.bytes.size, 0, NULL);
    if (!json)
        errx(1, "jansson: a message that is none");
    sink = json_object_size(json);
    json_decref(json);
}

static void write_jansson(void)
{
    char *text = json_dumps(message.json, JSON_COMPACT);
    sink = strlen(text);
    free(text);
}

static void read_msgpack_c(void)
{
    msgpack_unpacked unpacked;
    msgpack_unpacked_init(&unpacked);
    if (msgpack_unpack_next(&unpacked, message.bytes.data, message.bytes.size, NULL) !=
        MSGPACK_UNPACK_SUCCESS)
        errx(1, "msgpack-c: a message that is none");
    sink = unpacked.data.via.array.size;
    msgpack_unpacked_destroy(&unpacked);
}

static void write_msgpack_c(void)
{
    static msgpack_sbuffer out;
    msgpack_packer packer;
    out.size = 0;
    msgpack_packer_init(&packer, &out, msgpack_sbuffer_write);
    msgpack_pack_object(&packer, message.unpacked.data);
    sink = out.size;
}

/* ---- measuring ---- */

static double cost_ns(void (*way)(void), double seconds)
{
    size_t count = 0, burst = 1;
    double start = now_ns(), passed;
    do {
        for (size_t i = 0; i < burst; i++)
            way();
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

static void measure(const char *label, const char *what, void (*own)(void), void (*bare)(void),
                    double seconds, size_t rounds)
{
    double ours[ROUNDS_MOST] = { 0 }, theirs[ROUNDS_MOST] = { 0 }, ratios[ROUNDS_MOST] = { 0 };
    for (size_t i = 0; i < rounds; i++) {
        ours[i] = cost_ns(own, seconds);
        theirs[i] = cost_ns(bare, seconds);
        ratios[i] = theirs[i] / ours[i];
    }
    double ratio = median(ratios, rounds);
    printf("%-18s %8zu  %-10s %-6s %11.0f %11.0f  %5.2f (%.2f to %.2f)\n", label, message.bytes.size,
           message.json ? "jansson" : "msgpack-c", what, median(ours, rounds), median(theirs, rounds), ratio,
           ratios[0], ratios[rounds - 1]);
    (void)fflush(stdout);
}

static void compare(const char *label, const crew_value *params, double seconds, size_t rounds)
{
    static const char *const protocols[] = { "jsonrpc", "msgpack" };
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++) {
        crew_arena arena = { 0 };
        crew_buffer bytes = { 0 };
        crew_wire_calls calls;
        bool json = i == 0;
        message.protocol = crew_protocol_find(protocols[i]);
        if (message.protocol->encode_call(crew_str("subtract"), params, 1, &bytes) != CREW_OK)
            errx(1, "no memory");
        message.bytes = crew_buffer_string(&bytes);
        if (message.protocol->decode_calls(message.bytes, &limits, &arena, &calls) != CREW_OK)
            errx(1, "no memory");
        message.call = calls.items[0];
        message.json = json ? json_loadb(bytes.data, bytes.size, 0, NULL) : NULL;
        msgpack_unpacked_init(&message.unpacked);
        if (!json &&
            msgpack_unpack_next(&message.unpacked, bytes.data, bytes.size, NULL) != MSGPACK_UNPACK_SUCCESS)
            errx(1, "no memory");
        measure(label, "read", read_rpcrew, json ? read_jansson : read_msgpack_c, seconds, rounds);
        measure(label, "write", write_rpcrew, json ? write_jansson : write_msgpack_c, seconds, rounds);
        json_decref(message.json);
        msgpack_unpacked_destroy(&message.unpacked);
        crew_buffer_fini(&bytes);
        crew_arena_fini(&arena);
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
    limits = crew_limits_resolve(NULL);
    if (seconds <= 0 || rounds < 1 || rounds > ROUNDS_MOST)
        errx(2, "usage: codec [SECONDS [ROUNDS]]");
    static const char record[] = "{\"id\":12345,\"name\":\"a name of some length\",\"active\":true,"
                                 "\"score\":0.75,\"tags\":[\"red\",\"green\"],\"parent\":null}";
    printf("A request read and written: rpcrew beside the library's own parse and dump; ratio: how many "
           "times as "
           "fast rpcrew is\n");
    printf("%-18s %8s  %-10s %-6s %11s %11s  ratio, median (least to most)\n", "params", "bytes", "library",
           "", "rpcrew ns", "bare ns");
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
