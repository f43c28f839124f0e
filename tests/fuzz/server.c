/* A whole server over inproc, on any bytes: its answer is that of crew_handle, and the same in both
 * protocols. The bytes go in as a caller's transport would send them. One thread, so that several messages in
 * one body are answered in their order. */
#include "twins.h"

#include <rpcrew/impl/transport.h>
#include <rpcrew/server.h>

#include <sched.h>

#define URL "inproc://fuzz"

static crew_server *server;
static const struct crew_transport_ops *ops;
static void *state;
static crew_message_pool messages;

static void open_both(void)
{
    static crew_transport_config config;
    static crew_error lost;
    crew_url *url = NULL;
    crew_error why;
    REQUIRE(crew_server_new(&server, twins_dispatcher(), &(crew_server_options){ .threads = 1 }, &why) ==
            CREW_OK);
    REQUIRE(crew_server_listen(server, URL, &why) == CREW_OK);
    REQUIRE(crew_server_start(server, &why) == CREW_OK);
    REQUIRE(crew_url_parse(URL, &url, &why) == CREW_OK);
    ops = crew_transport_find("inproc")->client;
    config = (crew_transport_config){
        .url = url, .limits = crew_limits_resolve(NULL), .lost = &lost, .messages = &messages
    };
    state = calloc(1, ops->size);
    REQUIRE(state && ops->open(state, &config, &why) == CREW_OK);
}

/* Messages that the server is through with. */
static uint64_t settled(void)
{
    crew_server_stats stats;
    crew_server_stats_get(server, &stats);
    REQUIRE(stats.requeued == 0 && stats.dropped == 0 && stats.expired == 0);
    return stats.replied + stats.done + stats.rejected;
}

static void take_replies(crew_bytes *answer)
{
    crew_list received = { 0 };
    crew_room room = { .messages = 1, .bytes = SIZE_MAX };
    REQUIRE(ops->recv(state, &received, &room) == CREW_OK);
    for (crew_message *m; (m = crew_list_take(&received));) {
        if (m->kind == CREW_EVENT_REPLY) {
            REQUIRE(!answer->data);
            *answer = (crew_bytes){ m->body.data, m->body.size };
            m->body = (crew_buffer){ 0 };
        }
        crew_message_free(m);
    }
}

static crew_bytes ask(crew_string request, const char *content_type)
{
    static uint64_t sent, replied;
    crew_server_stats stats;
    crew_bytes answer = { 0 };
    crew_list list = { 0 };
    crew_message *m = crew_message_new();
    REQUIRE(m);
    m->correlation = 1;
    m->content_type = content_type;
    crew_buffer_append(&m->body, request.data, request.size);
    crew_list_append(&list, m);
    REQUIRE(ops->send(state, &list) == CREW_OK && !list.count);
    for (sent++; settled() < sent;)
        (void)sched_yield();
    crew_server_stats_get(server, &stats);
    for (replied += 1; stats.replied == replied && !answer.data; take_replies(&answer))
        (void)sched_yield(); /* it is counted before it is sent */
    replied = stats.replied;
    return answer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!server)
        open_both();
    crew_string bytes = fuzz_string(data, size);
    crew_bytes expected = { 0 };
    crew_bytes got = ask(bytes, NULL);
    const crew_handle_options as_json = { .content_type = "application/json" };
    crew_status status = crew_handle(twins_dispatcher(), bytes, NULL, &expected);
    if (status == CREW_UNSUPPORTED) /* a server answers what nobody knows as JSON-RPC would */
        status = crew_handle(twins_dispatcher(), bytes, &as_json, &expected);
    REQUIRE(status == CREW_OK);
    REQUIRE(crew_string_equal((crew_string){ expected.data, expected.size },
                              (crew_string){ got.data, got.size }));
    crew_bytes_free(&expected);
    crew_bytes_free(&got);
    twins_check(bytes, ask);
    return 0;
}
