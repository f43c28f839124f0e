/* Every constructor, decoder and encoder of ours with each of its allocations failing in turn:
 * CREW_NO_MEMORY, nothing lost, nothing broken. And how much memory a message can ask for. */
#include "support/allocations.h"
#include "support/colour.h"
#include "support/test.h"

#include "conformance/service.h"

#include <rpcrew/impl/message.h>
#include <rpcrew/impl/protocol.h>
#include <rpcrew/jansson.h>

typedef crew_status scenario(void);

/* Runs it with its first allocation failing, then with its second, and so on until none fails. What a
 * scenario leaves to the caller it has freed. */
static void sweep(scenario *run)
{
    size_t live = allocations_live();
    for (size_t nth = 1;; nth++) {
        allocations_fail(nth);
        crew_status status = run();
        bool failed = allocations_failed();
        allocations_fail(0);
        assert_int_equal(allocations_live(), live);
        if (!failed) {
            assert_ok(status);
            assert_true(nth > 1);
            return;
        }
        assert_status(status, CREW_NO_MEMORY);
    }
}

#define SWEEP(name)                   \
    static void name##_(void **state) \
    {                                 \
        (void)state;                  \
        sweep(name);                  \
    }

/* ---- values ---- */

static crew_status arenas(void)
{
    crew_arena *arena = NULL;
    crew_status status = crew_arena_new(&arena);
    if (status == CREW_OK && !crew_arena_alloc(arena, 100000))
        status = CREW_NO_MEMORY;
    crew_arena_free(arena);
    return status;
}
SWEEP(arenas)

static crew_status build_by_hand(crew_arena *arena)
{
    crew_value *array, *object;
    crew_status status = crew_array_new(arena, &array);
    if (status == CREW_OK)
        status = crew_object_new(arena, &object);
    for (int i = 0; i < 300 && status == CREW_OK; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "key %d", i);
        status = crew_object_add(arena, object, crew_str(key), array);
        if (status == CREW_OK)
            status = crew_array_add(arena, array, NULL);
    }
    return status;
}

static crew_status values(void)
{
    crew_arena arena = { 0 };
    const crew_value *value;
    crew_status status = build_by_hand(&arena);
    if (status == CREW_OK)
        status = crew_pack(&arena, &value, "{s:[i,f,s,y%],s:{s:n}}", "a", 1, 2.5, "text", "\0\1", (size_t)2,
                           "b", "c");
    crew_arena_fini(&arena);
    return status;
}
SWEEP(values)

/* ---- the two notations ---- */

static const char json[] =
    "{\"list\":[1,2.5,\"text\",null,true,{\"deep\":[[],{}]}],\"big\":[0.1,\"\\u00e9\"]}";

static crew_status json_both_ways(void)
{
    crew_arena arena = { 0 };
    const crew_value *value;
    crew_bytes text = { 0 };
    crew_error why;
    crew_status status = crew_json_decode(crew_str(json), NULL, &arena, &value, &why);
    if (status == CREW_OK)
        status = crew_json_encode(value, CREW_JSON_PRETTY, &text);
    crew_bytes_free(&text);
    crew_arena_fini(&arena);
    return status;
}
SWEEP(json_both_ways)

/* With as many values open at a time as take several blocks, and members as want a table. */
static crew_status much_json(void)
{
    crew_arena arena = { 0 };
    crew_buffer text = { 0 };
    const crew_value *value;
    crew_error why;
    crew_buffer_text(&text, "[");
    for (int i = 0; i < 3000; i++)
        crew_buffer_text(&text, "1,");
    crew_buffer_text(&text, "{");
    for (int i = 0; i < 40; i++)
        crew_buffer_printf(&text, "%s\"%d\":{}", i ? "," : "", i);
    crew_buffer_text(&text, "}]");
    crew_status status = text.failed
                             ? CREW_NO_MEMORY
                             : crew_json_decode(crew_buffer_string(&text), NULL, &arena, &value, &why);
    crew_buffer_fini(&text);
    crew_arena_fini(&arena);
    return status;
}
SWEEP(much_json)

static crew_status through_jansson(void)
{
    crew_arena arena = { 0 };
    const crew_value *value, *back;
    json_t *made = NULL;
    crew_status status = crew_json_decode(crew_str(json), NULL, &arena, &value, NULL);
    if (status == CREW_OK)
        status = crew_value_to_jansson(value, &made);
    if (status == CREW_OK)
        status = crew_value_from_jansson(made, &arena, &back);
    json_decref(made);
    crew_arena_fini(&arena);
    return status;
}

static void the_bridge_to_jansson_(void **state)
{
    allocations_take_jansson(true);
    sweep(through_jansson);
    allocations_take_jansson(false);
    (void)state;
}

static crew_status msgpack_both_ways(void)
{
    static const char bytes[] = "\x82\xa1"
                                "a\x93\x01\xc4\x01\xff\xd4\x05\x07\x02\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00";
    crew_arena arena = { 0 };
    const crew_value *value;
    crew_bytes out = { 0 };
    crew_error why;
    crew_status status =
        crew_msgpack_decode((crew_string){ bytes, sizeof bytes - 1 }, NULL, &arena, &value, &why);
    if (status == CREW_OK)
        status = crew_msgpack_encode(value, &out);
    crew_bytes_free(&out);
    crew_arena_fini(&arena);
    return status;
}
SWEEP(msgpack_both_ways)

static crew_status urls(void)
{
    crew_url *url = NULL;
    crew_error why;
    crew_status status = crew_url_parse("amqp://user:p%40ss@a:1,b:2/vhost?queue=q&heartbeat=5", &url, &why);
    crew_url_free(url);
    return status;
}
SWEEP(urls)

/* ---- protocols ---- */

static const crew_protocol *protocol;
static const crew_limits *limits;

static crew_status encode_all(const crew_wire_calls *calls, const crew_value *value, crew_buffer *out)
{
    crew_status status = CREW_OK;
    for (size_t i = 0; i < calls->count && status == CREW_OK; i++) {
        status = protocol->encode_result(&calls->items[i], value, out);
        if (status == CREW_OK)
            status = protocol->encode_error(&calls->items[i], 7, crew_str("seven"), value, out);
    }
    return status;
}

static crew_status protocol_both_ways(void)
{
    crew_arena arena = { 0 };
    crew_buffer call = { 0 }, reply = { 0 };
    crew_wire_calls calls;
    crew_wire_replies replies;
    crew_error why;
    const crew_value *params;
    crew_status status = crew_pack(&arena, &params, "[s,i,[f,n]]", "text", 5, 2.5);
    if (status == CREW_OK)
        status = protocol->encode_call(crew_str("method"), params, 70000, &call);
    if (status == CREW_OK)
        status = protocol->decode_calls(crew_buffer_string(&call), limits, &arena, &calls);
    if (status == CREW_OK) {
        assert_int_equal(calls.items[0].code, 0);
        status = encode_all(&calls, params, &reply);
    }
    if (status == CREW_OK) {
        reply.size = 0;
        status = protocol->encode_result(&calls.items[0], params, &reply);
    }
    if (status == CREW_OK)
        status = protocol->decode_replies(crew_buffer_string(&reply), limits, &arena, &replies, &why);
    if (status == CREW_OK) {
        assert_int_equal(replies.count, 1);
        assert_true(replies.items[0].valid && replies.items[0].id == 70000);
    }
    crew_buffer_fini(&call);
    crew_buffer_fini(&reply);
    crew_arena_fini(&arena);
    return status;
}

static void every_protocol(void **state)
{
    (void)state;
    crew_limits resolved = crew_limits_resolve(NULL);
    limits = &resolved;
    for (size_t i = 0; (protocol = crew_protocol_at(i)); i++)
        sweep(protocol_both_ways);
}

/* ---- dispatching ---- */

static crew_status dispatchers(void)
{
    crew_dispatcher *dispatcher = NULL;
    crew_error why;
    crew_status status = crew_dispatcher_new(&dispatcher);
    if (status == CREW_OK)
        status = crew_dispatcher_add(dispatcher, "prefix.", &conformance_service, NULL, &why);
    crew_dispatcher_free(dispatcher);
    return status;
}
SWEEP(dispatchers)

static crew_status invert(crew_call *call)
{
    const struct colour *colour = crew_arg_custom(call, 0);
    if (!colour)
        return crew_fail_data(call, 5, NULL, "{s:i}", "given", 0);
    return crew_reply(call, "t", &colour_type,
                      &(struct colour){ 255 - colour->red, 255 - colour->green, 255 - colour->blue });
}

static const crew_custom_type *const types[] = { &colour_type, NULL };
static const crew_service_error errors[] = { { 5, "NO_COLOUR", "there is no colour" }, { 0 } };
static const crew_method methods[] = { { "invert", invert, "colour:colour?", "colour" }, { 0 } };
static const crew_service colours = {
    .name = "colours", .methods = methods, .types = types, .errors = errors
};

static crew_dispatcher *dispatcher;

static size_t occurrences(crew_string text, const char *word)
{
    size_t count = 0, size = strlen(word);
    for (const char *at = text.data;
         text.size && (at = memmem(at, text.size - (size_t)(at - text.data), word, size)); at += size)
        count++;
    return count;
}

/* Each of so many calls is answered as it should be (good), or told that there was no memory, or the whole of
 * it ends as that. */
static void handle_with_failures(crew_string request, const char *good, size_t calls)
{
    size_t live = allocations_live();
    bool failed = true;
    for (size_t nth = 1; failed; nth++) {
        crew_bytes answer = { 0 };
        allocations_fail(nth);
        crew_status status = crew_handle(dispatcher, request, NULL, &answer);
        failed = allocations_failed();
        allocations_fail(0);
        crew_string text = { answer.data, answer.size };
        size_t told = occurrences(text, "Internal error");
        assert_int_equal(occurrences(text, "(null)"), 0);
        if (status == CREW_OK)
            assert_int_equal(occurrences(text, good) + told, calls);
        else
            assert_status(status, CREW_NO_MEMORY);
        assert_true(failed || (status == CREW_OK && !told));
        crew_bytes_free(&answer);
        assert_int_equal(allocations_live(), live);
    }
}

static void bytes_in_bytes_out(void **state)
{
    (void)state;
    static const struct {
        const char *request, *good;
        size_t calls;
    } cases[] = {
        { "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":[[1,2,\"word\"]],\"id\":\"the id\"}",
          "\"result\":[1,2,\"word\"],\"id\":\"the id\"", 1 },
        { "[{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":{\"a\":1,\"b\":2},\"id\":1},"
          "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"\\u0069d\":\"i\\u0064\"}]",
          "\"result\":3", 2 },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1],\"id\":1}", "-32602", 1 },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"none\",\"id\":1}", "-32601", 1 },
        { "{\"jsonrpc\":\"2.0\",\"method\":", "-32700", 1 },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"rpc.discover\",\"id\":1}", "\"openrpc\"", 1 },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"invert\",\"params\":[\"#0000ff\"],\"id\":1}", "#ffff00", 1 },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"invert\",\"id\":1}",
          "\"code\":5,\"message\":\"there is no colour\",\"data\":{\"given\":0", 1 },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2]}", "id", 0 }, /* a notification */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        handle_with_failures(crew_str(cases[i].request), cases[i].good, cases[i].calls);
    static const char msgpack[] = "\x94\x00\xcd\x01\x00\xa4"
                                  "echo\x91\xa4word";
    handle_with_failures((crew_string){ msgpack, sizeof msgpack - 1 }, "word", 1);
}

/* ---- server and client, whose threads make no order ---- */

static char url[400];
static const char *client_protocol;

static crew_status call_once(crew_client *client, const char *word)
{
    crew_result *result = NULL;
    crew_error why;
    crew_status status = crew_client_call(client, "echo", &result, &why, "[s]", word);
    if (status == CREW_OK) {
        crew_string text = { 0 };
        assert_ok(crew_value_string(crew_result_value(result), &text));
        assert_string_equal(text.data, word);
    }
    crew_result_free(result);
    return status;
}

static crew_status start_server(crew_server **server, crew_error *why)
{
    crew_status status = crew_server_new(server, dispatcher, &(crew_server_options){ .threads = 2 }, why);
    if (status == CREW_OK)
        status = crew_server_listen(*server, url, why);
    return status == CREW_OK ? crew_server_start(*server, why) : status;
}

static crew_status start_client(crew_client **client, crew_error *why)
{
    const crew_client_options options = { .protocol = client_protocol, .timeout_ms = 300, .prefix = "" };
    return crew_client_new(client, url, &options, why);
}

/* One-way calls, and many at a time; whatever becomes of them, nothing may be lost. */
static void call_in_all_ways(crew_client *client)
{
    crew_batch *batch = NULL;
    crew_error why;
    (void)call_once(client, "word");
    (void)!crew_client_notify(client, "update", &why, "[i]", 1);
    crew_status status = crew_batch_new(&batch, client);
    for (int i = 0; i < 10 && status == CREW_OK; i++)
        status = crew_batch_add(batch, "add", "[ii]", i, 1);
    if (status == CREW_OK)
        status = crew_batch_run(batch, &why);
    for (size_t i = 0; status == CREW_OK && i < 10; i++) {
        double sum = 0;
        assert_ok(crew_value_double(crew_batch_value(batch, i), &sum));
        assert_int_equal((int)sum, (int)i + 1);
    }
    crew_batch_free(batch);
}

/* An opening that nobody waits for any more frees what is its own a moment later. */
static bool all_is_freed(void *live)
{
    return allocations_live() == *(size_t *)live;
}

/* Of calls that fail for want of memory; and more than all allocations of a server and a client, whichever
 * thread does them. */
enum { ROUNDS = 60, ALLOCATIONS_MOST = 1000 };

/* A caller over WebSocket loses its connection then, and comes back later each time. */
static size_t rounds(void)
{
    return strncmp(url, "ws", 2) == 0 ? 9 : ROUNDS;
}

static void servers_and_clients_come_up_or_say_why(void **state)
{
    (void)state;
    size_t live = allocations_live();
    size_t nth = 1;
    /* Where calls come too late there are fewer, so that one round without a failure says little. */
    for (int quiet = 0; quiet < 3 && nth < ALLOCATIONS_MOST; nth++) {
        crew_server *server = NULL;
        crew_client *client = NULL;
        crew_error why;
        allocations_fail(nth);
        crew_status status = start_server(&server, &why);
        if (status == CREW_OK)
            status = start_client(&client, &why);
        if (status == CREW_OK)
            call_in_all_ways(client);
        else
            assert_status(status, CREW_NO_MEMORY);
        quiet = allocations_failed() ? 0 : quiet + 1;
        allocations_fail(0);
        crew_client_free(client);
        crew_server_free(server);
        assert_true(eventually(all_is_freed, &live));
    }
    assert_true(nth > 80 && nth < ALLOCATIONS_MOST);
}

/* A connection may have been lost for want of memory, and be there again a moment later. */
static bool answers(void *client)
{
    return call_once(client, "word") == CREW_OK;
}

static void go_on(const char *name)
{
    crew_server *server = NULL;
    crew_client *client = NULL;
    crew_error why;
    client_protocol = name;
    assert_ok_why(start_server(&server, &why), why);
    assert_ok_why(start_client(&client, &why), why);
    for (size_t nth = 1; nth <= rounds(); nth++) {
        assert_true(eventually(answers, client));
        allocations_fail(nth * 7 % 20 + 1);
        (void)call_once(client, "a word that is longer than others, so that it wants memory of its own");
        allocations_fail(0);
    }
    assert_true(eventually(answers, client));
    crew_client_free(client);
    crew_server_free(server);
}

static void the_server_goes_on(void **state)
{
    (void)state;
    size_t live = allocations_live();
    go_on("jsonrpc");
    go_on("msgpack");
    assert_true(eventually(all_is_freed, &live));
}

/* ---- how much a message may cost: docs/values.md ---- */

static crew_string repeated(crew_buffer *out, const char *open, const char *item, size_t count,
                            const char *close)
{
    crew_buffer_text(out, open);
    for (size_t i = 0; i < count; i++) {
        if (i && *close == ']')
            crew_buffer_text(out, ",");
        crew_buffer_text(out, item);
    }
    crew_buffer_text(out, close);
    return crew_buffer_string(out);
}

static void assert_most(crew_string text, bool msgpack, size_t times)
{
    crew_arena arena = { 0 };
    const crew_value *value;
    crew_error why;
    const crew_limits wide = { .message_bytes = 64 << 20 };
    allocations_measure();
    if (msgpack)
        assert_ok_why(crew_msgpack_decode(text, &wide, &arena, &value, &why), why);
    else
        assert_ok_why(crew_json_decode(text, &wide, &arena, &value, &why), why);
    size_t most = allocations_most_bytes();
    crew_arena_fini(&arena);
    if (most > times * text.size + 4096)
        fail_msg("%zu bytes for %zu: %zu times", most, text.size, most / text.size);
}

static void a_hostile_header_allocates_nothing(void **state)
{
    (void)state;
    static const char *const headers[] = { "\xdd\xff\xff\xff\xff",
                                           "\xdf\xff\xff\xff\xff",
                                           "\xdb\xff\xff\xff\xff",
                                           "\xc6\xff\xff\xff\xff",
                                           "\xc9\xff\xff\xff\xff\x01",
                                           "\xdc\xff\xff",
                                           "\x9f\x9f\x9f\x9f\x9f\x9f\x9f\x9f\x9f\x9f" };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        crew_arena arena = { 0 };
        const crew_value *value;
        crew_error why;
        allocations_measure();
        assert_true(crew_msgpack_decode(crew_str(headers[i]), NULL, &arena, &value, &why) != CREW_OK);
        assert_true(allocations_most_bytes() < 4096); /* an arena's first chunk */
        crew_arena_fini(&arena);
    }
}

static void memory_is_a_multiple_of_the_bytes(void **state)
{
    (void)state;
    static const char *const items[] = { "1", "\"\"", "[]", "{}", "{\"\":0}", "[[]]", "0.5", "\"abcdefgh\"" };
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        crew_buffer text = { 0 };
        assert_most(repeated(&text, "[", items[i], 200000, "]"), false, 18);
        crew_buffer_fini(&text);
    }
    static const char *const packed[] = { "\x01",      "\xa0",         "\x90",
                                          "\x80",      "\x81\xa0\x01", "\x91\x91\xa0",
                                          "\xc4\x01x", "\xa1x",        "\xc7\x01\x05x" };
    static const unsigned counts[] = { 200, 1000, 5000, 32768, 200000 };
    for (size_t i = 0; i < sizeof packed / sizeof *packed * (sizeof counts / sizeof *counts); i++) {
        crew_buffer bytes = { 0 };
        unsigned count = counts[i % 5];
        char head[5] = { '\xdd', (char)(count >> 24), (char)(count >> 16), (char)(count >> 8), (char)count };
        crew_buffer_append(&bytes, head, sizeof head);
        assert_most(repeated(&bytes, "", packed[i / 5], count, ""), true, 40);
        crew_buffer_fini(&bytes);
    }
}

/* What else a call takes, its decoding, its error and its own reply, is bounded by the batch's limit. */
static void a_call_in_a_batch_takes_a_kibibyte(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static const char *const items[] = { "1", "{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":1}" };
    for (size_t i = 0; i < sizeof items / sizeof *items; i++) {
        crew_buffer text = { 0 };
        crew_bytes answer = { 0 };
        crew_string request = repeated(&text, "[", items[i], COUNT, "]");
        allocations_measure();
        assert_ok(crew_handle(dispatcher, request, NULL, &answer));
        size_t most = allocations_most_bytes();
        if (most > 100 * request.size + COUNT * 1024)
            fail_msg("%zu bytes for a batch of %zu", most, request.size);
        crew_bytes_free(&answer);
        crew_buffer_fini(&text);
    }
}

static int setup(void **state)
{
    (void)state;
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &colours, NULL, NULL));
    return crew_dispatcher_add(dispatcher, "", &conformance_service, NULL, NULL) == CREW_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    crew_dispatcher_free(dispatcher);
    return 0;
}

/* With a URL, only what has a transport in it, there; without, all, over inproc. */
int main(int argc, char **argv)
{
    const struct CMUnitTest transports[] = {
        cmocka_unit_test(servers_and_clients_come_up_or_say_why),
        cmocka_unit_test(the_server_goes_on),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arenas_),
        cmocka_unit_test(values_),
        cmocka_unit_test(json_both_ways_),
        cmocka_unit_test(much_json_),
        cmocka_unit_test(the_bridge_to_jansson_),
        cmocka_unit_test(msgpack_both_ways_),
        cmocka_unit_test(urls_),
        cmocka_unit_test(every_protocol),
        cmocka_unit_test(dispatchers_),
        cmocka_unit_test(bytes_in_bytes_out),
        cmocka_unit_test(servers_and_clients_come_up_or_say_why),
        cmocka_unit_test(the_server_goes_on),
        cmocka_unit_test(a_hostile_header_allocates_nothing),
        cmocka_unit_test(memory_is_a_multiple_of_the_bytes),
        cmocka_unit_test(a_call_in_a_batch_takes_a_kibibyte),
    };
    allocations_take_jansson(false);
    (void)snprintf(url, sizeof url, "%s", test_url(argc > 1 ? argv[1] : "inproc://faults"));
    return argc > 1 ? cmocka_run_group_tests_name(argv[1], transports, setup, teardown)
                    : cmocka_run_group_tests(tests, setup, teardown);
}
