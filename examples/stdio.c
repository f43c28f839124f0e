/* A transport of one's own, in two functions: a service over standard input and output, one message a line.
 * Calls run at the same time, so that answers come as they are ready.
 *
 *   $ echo '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}' | stdio
 *   {"jsonrpc":"2.0","result":19,"id":1} */
#include <rpcrew.h>

#include <err.h>
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
    { "subtract", subtract, "minuend:number subtrahend:number", "number", "Returns minuend - subtrahend." },
    { "greet", greet, "name:string?", "object", "Greets." },
    { 0 },
};

struct lines {
    crew_server *server;
    char bytes[65536];
    size_t size, taken;
    bool ended;
};

/* The next line, if it is there whole; one that fills all the room counts as one. */
static bool next_line(struct lines *in, crew_request *request)
{
    const char *start = in->bytes + in->taken;
    const char *end = memchr(start, '\n', in->size - in->taken);
    if (!end && in->size - in->taken < sizeof in->bytes)
        return false;
    size_t size = end ? (size_t)(end - start) : sizeof in->bytes;
    request->bytes = (crew_string){ start, size };
    request->content_type = "application/json";
    in->taken += size + (end != NULL);
    return true;
}

static crew_status receive(void *context, int wake_fd, int timeout_ms, crew_request *request)
{
    struct lines *in = context;
    if (next_line(in, request))
        return CREW_OK;
    in->size -= in->taken;
    memmove(in->bytes, in->bytes + in->taken, in->size);
    in->taken = 0;
    struct pollfd fds[] = { { .fd = in->ended ? -1 : STDIN_FILENO, .events = POLLIN },
                            { .fd = wake_fd, .events = POLLIN } };
    if (poll(fds, 2, timeout_ms) <= 0 || !fds[0].revents)
        return CREW_TIMEOUT;
    ssize_t got = read(STDIN_FILENO, in->bytes + in->size, sizeof in->bytes - in->size);
    if (got > 0) {
        in->size += (size_t)got;
    } else {
        in->ended = true;
        crew_server_stop(in->server); /* once: what is in flight is still answered */
    }
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
    return status == CREW_OK ? 0 : 1;
}
