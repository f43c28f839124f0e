/* The protocol alone, inside somebody else's event loop: libevent moves lines, each is read as calls,
 * answered here by a function of our own, and the replies are written. No thread, no server, no dispatcher.
 *
 *   $ event_loop 7000 &
 *   listening on port 7000
 *   $ rpcrew call tcp://127.0.0.1:7000 count
 *   1 */
#include <rpcrew.h>

#include <err.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINE_MOST = 1 << 20, CALLS_MOST = 100, OUT_MOST = 1 << 20 };

static int64_t counted;

/* What becomes of a good call. */
static crew_outgoing_reply run(const crew_incoming_call *call, crew_arena *arena)
{
    const crew_value *value = NULL;
    if (!crew_string_equal(call->method, crew_str("count")))
        return (crew_outgoing_reply){ .code = CREW_CODE_METHOD_NOT_FOUND };
    if (crew_pack(arena, &value, "I", ++counted) != CREW_OK)
        return (crew_outgoing_reply){ .code = CREW_CODE_INTERNAL_ERROR };
    return (crew_outgoing_reply){ .value = value };
}

/* The answer to a line: empty if there is none. */
static crew_bytes answer(crew_string line)
{
    const crew_limits limits = { .message_bytes = LINE_MOST, .batch = CALLS_MOST };
    crew_outgoing_reply replies[CALLS_MOST] = { { 0 } };
    crew_incoming_calls calls;
    crew_bytes bytes = { 0 };
    crew_arena *arena = NULL;
    if (crew_arena_new(&arena) != CREW_OK ||
        crew_read_calls(crew_protocol_find("jsonrpc"), line, &limits, arena, &calls) != CREW_OK)
        errx(1, "no memory");
    for (size_t i = 0; i < calls.count; i++)
        if (!calls.items[i].code) /* else the library says what is wrong with it */
            replies[i] = run(&calls.items[i], arena);
    if (crew_write_replies(&calls, replies, CREW_ERRORS_PAIR, &bytes) != CREW_OK)
        errx(1, "no memory");
    crew_arena_free(arena);
    return bytes;
}

static void on_read(struct bufferevent *connection, void *unused)
{
    struct evbuffer *in = bufferevent_get_input(connection);
    const struct evbuffer *out = bufferevent_get_output(connection);
    size_t size;
    (void)unused;
    for (char *line;
         evbuffer_get_length(out) < OUT_MOST && (line = evbuffer_readln(in, &size, EVBUFFER_EOL_CRLF));
         free(line)) {
        crew_bytes bytes = answer((crew_string){ line, size });
        if (bytes.size) {
            (void)bufferevent_write(connection, bytes.data, bytes.size);
            (void)bufferevent_write(connection, "\n", 1);
        }
        crew_bytes_free(&bytes);
    }
    if (evbuffer_get_length(out) >= OUT_MOST) /* who does not read is not read, until on_write */
        (void)bufferevent_disable(connection, EV_READ);
    else if (evbuffer_get_length(in) > LINE_MOST)
        bufferevent_free(connection);
}

/* All is written: what waited for that goes on. */
static void on_write(struct bufferevent *connection, void *has_ended)
{
    if (has_ended) {
        bufferevent_free(connection);
    } else if (!(bufferevent_get_enabled(connection) & EV_READ)) {
        (void)bufferevent_enable(connection, EV_READ);
        on_read(connection, NULL);
    }
}

static void on_event(struct bufferevent *connection, short events, void *unused)
{
    (void)unused;
    if (events & BEV_EVENT_ERROR || !evbuffer_get_length(bufferevent_get_output(connection)))
        bufferevent_free(connection);
    else if (events & BEV_EVENT_EOF) /* whoever has said all still wants the answers */
        bufferevent_setcb(connection, NULL, on_write, on_event, connection);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size,
                      void *unused)
{
    struct event_base *base = evconnlistener_get_base(listener);
    struct bufferevent *connection = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    (void)address;
    (void)size;
    (void)unused;
    if (!connection)
        return;
    bufferevent_setcb(connection, on_read, on_write, on_event, NULL);
    (void)bufferevent_enable(connection, EV_READ | EV_WRITE);
}

static void on_signal(evutil_socket_t number, short events, void *base)
{
    (void)number;
    (void)events;
    (void)event_base_loopbreak(base);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t size = sizeof address;
    struct event_base *base = event_base_new();
    if (argc > 2 || !base)
        errx(2, "usage: event_loop [PORT]");
    address.sin_port = htons((uint16_t)(argc > 1 ? strtoul(argv[1], NULL, 10) : 0));
    struct evconnlistener *listener =
        evconnlistener_new_bind(base, on_accept, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, -1,
                                (struct sockaddr *)&address, (int)size);
    struct event *stop = evsignal_new(base, SIGTERM, on_signal, base);
    if (!listener || !stop || event_add(stop, NULL) != 0)
        err(1, "cannot listen");
    (void)getsockname(evconnlistener_get_fd(listener), (struct sockaddr *)&address, &size);
    printf("listening on port %u\n", ntohs(address.sin_port));
    (void)fflush(stdout);
    (void)event_base_dispatch(base);
    event_free(stop);
    evconnlistener_free(listener);
    event_base_free(base);
    return 0;
}
