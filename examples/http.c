/* The core alone, inside somebody else's server: bytes in, bytes out, in an HTTP server by libmicrohttpd,
 * with the page that shows the methods.
 *
 *   $ http 8080 &
 *   $ curl -d '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}' localhost:8080/
 *   {"jsonrpc":"2.0","result":19,"id":1} */
#include <rpcrew.h>

#include <err.h>
#include <microhttpd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { BODY_MOST = 1 << 20, THREADS = 4, IDLE_S = 60 };

static crew_status subtract(crew_call *call)
{
    return crew_reply_double(call, crew_arg_double(call, 0) - crew_arg_double(call, 1));
}

static const crew_method methods[] = {
    { .name = "subtract",
      .handler = subtract,
      .params = "minuend:number subtrahend:number",
      .result = "number",
      .doc = "Returns minuend - subtrahend." },
    { 0 },
};

static enum MHD_Result respond(struct MHD_Connection *connection, unsigned status, const char *content_type,
                               crew_string body)
{
    char *copy = malloc(body.size + 1);
    if (!copy)
        return MHD_NO;
    if (body.size)
        memcpy(copy, body.data, body.size);
    struct MHD_Response *response = MHD_create_response_from_buffer(body.size, copy, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(copy);
        return MHD_NO;
    }
    if (content_type)
        (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    enum MHD_Result queued = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

/* Whether a content type is one that the library knows: for all others it would look at the bytes. */
static bool is_known(const char *content_type)
{
    return crew_answer_type(content_type, (crew_string){ 0 }) != NULL;
}

struct body {
    char *data;
    size_t size;
};

/* The whole body is there. Errors of the protocol are answers like others, with status 200. */
static enum MHD_Result answer(struct MHD_Connection *connection, const crew_dispatcher *dispatcher,
                              const struct body *body)
{
    const crew_string request = { body->data, body->size };
    const char *type = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);
    if (type && !is_known(type))
        return respond(connection, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, NULL, (crew_string){ 0 });
    const crew_handle_options options = { .content_type = type, .limits = { .message_bytes = BODY_MOST } };
    crew_bytes reply = { 0 };
    crew_status status = crew_handle(dispatcher, request, &options, &reply);
    if (status == CREW_UNSUPPORTED)
        return respond(connection, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, NULL, (crew_string){ 0 });
    if (status != CREW_OK)
        return respond(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, (crew_string){ 0 });
    enum MHD_Result queued =
        respond(connection, reply.size ? MHD_HTTP_OK : MHD_HTTP_NO_CONTENT,
                reply.size ? crew_answer_type(type, request) : NULL, (crew_string){ reply.data, reply.size });
    crew_bytes_free(&reply);
    return queued;
}

/* The page, and the document that it reads. */
static enum MHD_Result show(struct MHD_Connection *connection, const crew_dispatcher *dispatcher,
                            const char *path)
{
    crew_bytes document = { 0 };
    if (strcmp(path, "/") == 0)
        return respond(connection, MHD_HTTP_OK, "text/html; charset=utf-8", crew_page());
    if (strcmp(path, "/openrpc.json") != 0 || crew_describe(dispatcher, &document) != CREW_OK)
        return respond(connection, MHD_HTTP_NOT_FOUND, NULL, (crew_string){ 0 });
    enum MHD_Result queued =
        respond(connection, MHD_HTTP_OK, "application/json", (crew_string){ document.data, document.size });
    crew_bytes_free(&document);
    return queued;
}

/* Keeps up to a byte more than is allowed, by which it is seen to be too much. */
static enum MHD_Result take_part(struct body *body, const char *part, size_t size)
{
    size_t room = BODY_MOST + 1 - body->size;
    size = size < room ? size : room;
    char *data = realloc(body->data, body->size + size + 1);
    if (!data)
        return MHD_NO;
    memcpy(data + body->size, part, size);
    body->data = data;
    body->size += size;
    return MHD_YES;
}

/* libmicrohttpd calls this once for the header, then for each part of the body, then with none. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *part, size_t *size,
                                  void **request)
{
    (void)version;
    struct body *body = *request;
    if (!body) {
        *request = calloc(1, sizeof *body);
        return *request ? MHD_YES : MHD_NO;
    }
    if (*size) {
        size_t taken = *size;
        *size = 0;
        return take_part(body, part, taken);
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) == 0)
        return show(connection, context, url);
    if (strcmp(method, MHD_HTTP_METHOD_POST) != 0)
        return respond(connection, MHD_HTTP_METHOD_NOT_ALLOWED, NULL, (crew_string){ 0 });
    if (body->size > BODY_MOST)
        return respond(connection, MHD_HTTP_CONTENT_TOO_LARGE, NULL, (crew_string){ 0 });
    return answer(connection, context, body);
}

static void on_end(void *context, struct MHD_Connection *connection, void **request,
                   enum MHD_RequestTerminationCode why)
{
    (void)context;
    (void)connection;
    (void)why;
    struct body *body = *request;
    if (body)
        free(body->data);
    free(body);
    *request = NULL;
}

int main(int argc, char **argv)
{
    static const crew_service service = { .name = "http", .version = "1.0.0", .methods = methods };
    crew_dispatcher *dispatcher = NULL;
    crew_error why;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (crew_dispatcher_new(&dispatcher) != CREW_OK ||
        crew_dispatcher_add(dispatcher, "", &service, NULL, &why) != CREW_OK)
        errx(1, "cannot set up");

    char *end = NULL;
    unsigned long port = argc > 1 ? strtoul(argv[1], &end, 10) : 8080;
    if (port > UINT16_MAX || (argc > 1 && (end == argv[1] || *end)))
        errx(2, "usage: http [PORT]; it listens on all addresses");
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD, (uint16_t)port, NULL, NULL, on_request, dispatcher,
                         MHD_OPTION_THREAD_POOL_SIZE, (unsigned)THREADS, MHD_OPTION_CONNECTION_TIMEOUT,
                         (unsigned)IDLE_S, MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL, MHD_OPTION_END);
    if (!daemon)
        err(1, "port %lu", port);
    printf("listening on port %u\n", (unsigned)MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT)->port);
    (void)fflush(stdout);
    int signal_number;
    (void)sigwait(&signals, &signal_number);
    MHD_stop_daemon(daemon);
    crew_dispatcher_free(dispatcher);
    return 0;
}
