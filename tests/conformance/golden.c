/* The golden files against the conformance service: run as `golden URL`, for a worker that listens there, or
 * as `golden pure`, for bytes in and bytes out without one. */
#include "support/golden.h"
#include "support/raw.h"

#include "conformance/service.h"

/* How many cases each file has at least, so that none is lost unnoticed. */
static const struct {
    const char *name;
    size_t least;
} files[] = {
    { "jsonrpc-spec.txt", 15 },
    { "jsonrpc-rules.txt", 66 },
    { "jsonrpc-corners.txt", 320 },
    { "msgpack-rules.txt", 280 },
};

static const char *pattern;
static crew_dispatcher *dispatcher;

struct run {
    const crew_protocol *protocol;
    const crew_transport *transport;
    struct raw_end *client; /* NULL: pure */
    size_t wrong;
};

/* ---- pure ---- */

static void handle(void *context, const struct golden_case *one)
{
    struct run *run = context;
    crew_bytes answer = { 0 };
    const crew_handle_options options = { .content_type = run->protocol->content_type };
    assert_ok(crew_handle(dispatcher, one->request, &options, &answer));
    run->wrong += !golden_is_right(one, run->protocol, (crew_string){ answer.data, answer.size });
    crew_bytes_free(&answer);
}

/* ---- a worker ---- */

static const char sentinel[] = "{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":\"sentinel\"}";
static const char sentinel_reply[] = "{\"jsonrpc\":\"2.0\",\"result\":[\"hello\",5],\"id\":\"sentinel\"}";

/* The worker has one thread, so that what comes behind a request is answered behind it. */
static void ask(void *context, const struct golden_case *one)
{
    struct run *run = context;
    if (!run->transport->carries_types && crew_protocol_of(NULL, one->request) != run->protocol)
        return; /* nothing there tells whose the bytes are meant to be */
    run->client->content_type = run->protocol->content_type;
    raw_request(run->client, one->request, 1, false);
    bool answers_all = strcmp(run->transport->scheme, "http") == 0; /* if only with a status */
    if (one->reply_count || answers_all) {
        crew_message *reply = raw_next_of(run->client, CREW_EVENT_REPLY);
        run->wrong += !golden_is_right(one, run->protocol, crew_buffer_string(&reply->body));
        crew_message_free(reply);
    }
    run->client->content_type = "application/json";
    raw_request(run->client, crew_str(sentinel), 2, false);
    crew_message *next = raw_next_of(run->client, CREW_EVENT_REPLY);
    run->wrong += !crew_string_equal(crew_buffer_string(&next->body), crew_str(sentinel_reply));
    crew_message_free(next);
}

static size_t run_all(struct raw_end *client)
{
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512], protocol[32];
        (void)snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, files[i].name);
        (void)snprintf(protocol, sizeof protocol, "%.*s", (int)strcspn(files[i].name, "-"), files[i].name);
        struct run run = { .protocol = crew_protocol_find(protocol), .client = client };
        if (client)
            run.transport = crew_transport_find(crew_url_scheme(client->url));
        assert_non_null(run.protocol);
        size_t count = golden_each(path, client ? ask : handle, &run);
        if (count < files[i].least)
            fail_msg("%zu cases in %s, not %zu", count, files[i].name, files[i].least);
        if (run.wrong)
            print_error("%zu wrong in %s\n", run.wrong, files[i].name);
        wrong += run.wrong;
    }
    return wrong;
}

static void every_case_gets_its_reply(void **state)
{
    (void)state;
    crew_server *server = NULL;
    crew_error why;
    struct raw_end client;
    size_t wrong;
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &conformance_service, NULL, NULL));
    if (strcmp(pattern, "pure") == 0) {
        wrong = run_all(NULL);
    } else {
        const char *url = test_url(pattern);
        assert_ok_why(crew_server_new(&server, dispatcher, &(crew_server_options){ .threads = 1 }, &why),
                      why);
        assert_ok_why(crew_server_listen(server, url, &why), why);
        assert_ok_why(crew_server_start(server, &why), why);
        raw_open(&client, url, false);
        wrong = run_all(&client);
        raw_close(&client, NULL);
        crew_server_free(server);
    }
    crew_dispatcher_free(dispatcher);
    assert_int_equal(wrong, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_case_gets_its_reply) };
    if (argc != 2)
        return 2;
    pattern = argv[1];
    return cmocka_run_group_tests_name(pattern, tests, NULL, NULL);
}
