/* A transport of one's own, in two functions: a service over standard input and output, one message a line.
 * Calls run at the same time, so that answers come as they are ready.
 *
 *   $ echo '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}' | stdio
 *   {"jsonrpc":"2.0","result":19,"id":1} */
#include <rpcrew.h>

#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static crew_status subtract(crew_call *call)
{
    return crew_reply_double(call, crew_arg_double(call, 0) - crew_arg_double(call, 1));
}

static crew_status greet(crew_call *call)
{
    crew_string name = crew_arg_given(call, 0) ? crew_arg_string(call, 0) : crew_str("world");
    return crew_reply(call, "{s:S,s:i}", "hello", name, "letters", (int)name.size);
}

static const crew_method methods[] = {
    { .name = "subtract",
      .handler = subtract,
      .params = "minuend:number subtrahend:number",
      .result = "number",
      .doc = "Returns minuend - subtrahend." },
    { "greet", greet, "name:string?", "object", "Greets." },
    { 0 },
};

enum { ROOM_FIRST = 1 << 16, ROOM_MOST = (16 << 20) + 1 }; /* a byte beyond the limit, so that it is seen */

struct lines {
    crew_server *server;
    char *bytes;
    size_t room, size, taken;
    bool ended, stopped;
};

/* The next line, if it is there whole; what fills all the room, or is the last, counts as one. */
static bool next_line(struct lines *in, crew_request *request)
{
    const char *start = in->bytes + in->taken;
    size_t left = in->size - in->taken;
    const char *end = left ? memchr(start, '\n', left) : NULL;
    if (!end && left < ROOM_MOST && !(in->ended && left))
        return false;
    size_t size = end ? (size_t)(end - start) : left;
    request->bytes = (crew_string){ start, size };
    request->content_type = "application/json";
    in->taken += size + (end != NULL);
    return true;
}

/* Drops what is taken, and makes room for more. */
static bool make_room(struct lines *in)
{
    in->size -= in->taken;
    if (in->taken)
        memmove(in->bytes, in->bytes + in->taken, in->size);
    in->taken = 0;
    if (in->size < in->room)
        return true;
    size_t room = in->room ? 2 * in->room : ROOM_FIRST;
    char *bytes = realloc(in->bytes, room < ROOM_MOST ? room : ROOM_MOST);
    if (!bytes)
        return false;
    in->bytes = bytes;
    in->room = room < ROOM_MOST ? room : ROOM_MOST;
    return true;
}

static crew_status receive(void *context, int wake_fd, int timeout_ms, crew_request *request)
{
    struct lines *in = context;
    if (next_line(in, request))
        return CREW_OK;
    if (in->ended && !in->stopped) { /* once: all lines have been handed over, and are still answered */
        in->stopped = true;
        crew_server_stop(in->server);
    }
    if (!make_room(in))
        return CREW_NO_MEMORY;
    struct pollfd fds[] = { { .fd = in->ended ? -1 : STDIN_FILENO, .events = POLLIN },
                            { .fd = wake_fd, .events = POLLIN } };
    if (poll(fds, 2, timeout_ms) <= 0 || !fds[0].revents)
        return CREW_TIMEOUT;
    ssize_t got = read(STDIN_FILENO, in->bytes + in->size, in->room - in->size);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return CREW_TIMEOUT;
    if (got > 0)
        in->size += (size_t)got;
    else
        in->ended = true;
    return next_line(in, request) ? CREW_OK : CREW_TIMEOUT;
}

static void reply(void *context, void *route, const crew_answer *answer)
{
    (void)context;
    (void)route;
    if (!answer->bytes.size)
        return;
    printf("%.*s\n", CREW_STR(answer->bytes));
    (void)fflush(stdout);
}

int main(void)
{
    static const crew_service service = { .name = "stdio", .version = "1.0.0", .methods = methods };
    static struct lines in;
    const crew_callbacks callbacks = { .receive = receive, .reply = reply, .context = &in };
    crew_dispatcher *dispatcher = NULL;
    crew_error why;
    if (crew_dispatcher_new(&dispatcher) != CREW_OK ||
        crew_dispatcher_add(dispatcher, "", &service, NULL, &why) != CREW_OK)
        errx(1, "cannot set up");
    if (crew_server_new(&in.server, dispatcher, NULL, &why) != CREW_OK ||
        crew_server_listen_with(in.server, "callback://stdio", &callbacks, &why) != CREW_OK)
        errx(1, "%s", why.message);
    crew_status status = crew_server_run(in.server);
    crew_server_free(in.server);
    crew_dispatcher_free(dispatcher);
    free(in.bytes);
    return status == CREW_OK ? 0 : 1;
}
